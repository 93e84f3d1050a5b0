"""The pages of the models in use: how well they agree, their calibration, and their
descriptions."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import chain
from statistics import StatisticsError, correlation, fmean

from aiohttp import web

from dashboard import formats
from dashboard.calibration import NEWEST, calibration_fields, read_pairs
from dashboard.database import Database
from dashboard.model_info import ModelInfo
from dashboard.pages import ready, render
from dashboard.poller import Poller
from dashboard.rows import ModelKey
from dashboard.topic import Fields
from dashboard.ward import Ward

# Maximum number of stays on which a shadow is compared with the champion.
COMPARED = 2_000
METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "brier_of_base_rate": "Brier score of the base rate",
}


async def models(request: web.Request) -> web.Response:
    """Shows champion and shadows, and their agreement on the patients in the ICU."""
    poller = await ready(request)
    used = poller.state.models
    ward = poller.shelf.ward(None).ward
    stream = poller.state.current
    rows: list[Fields] = []
    outcomes: list[Fields] = []
    if used.champion is not None:
        rows = [_described(poller, used.champion, "champion", {})]
        for shadow in used.shadows:
            agreement = await _agreement(poller, used.champion, shadow, ward)
            rows.append(_described(poller, shadow, "shadow", agreement))
        for key in (used.champion, *used.shadows):
            info = poller.descriptions.get(key)
            if stream and info and info.outcome:
                read = partial(read_pairs, stream=stream, model=key, outcome=info.outcome)
                if pairs := await poller.query(read):
                    outcomes.append(calibration_fields(key, info.outcome, pairs))
    return render(
        request,
        "models",
        page=poller.shelf.ward(None).topic.content.get("page"),
        rows=rows,
        outcomes=outcomes,
        newest=NEWEST,
        error=used.error,
    )


def _described(poller: Poller, key: ModelKey, role: str, agreement: Fields) -> Fields:
    info = poller.descriptions.get(key) or ModelInfo(key)
    return {
        "name": key.name,
        "version": key.version,
        "role": role,
        "title": info.title or "not described",
        "sentence": info.sentence,
        "n": agreement.get("n", ""),
        "difference": agreement.get("difference", ""),
        "order": agreement.get("order", ""),
    }


async def _agreement(
    poller: Poller, champion: ModelKey, shadow: ModelKey, ward: Ward | None
) -> Fields:
    """Compares a shadow with the champion on the latest predictions of at most COMPARED patients.
    Returns the number of patients, the rank correlation and, if both models predict probabilities,
    the mean absolute difference."""
    if ward is None:
        return {}
    seqs = [each.risk.seq for each in ward.ranked[:COMPARED] if each.risk]
    stream = ward.clock.stream

    def read(database: Database) -> list[tuple[float, float]]:
        first, second = (database.answers(stream, key, seqs) for key in (champion, shadow))
        return [(first[seq], second[seq]) for seq in first.keys() & second.keys()]

    pairs = await poller.query(read)
    if len(pairs) < 2:
        return {"n": str(len(pairs))}
    found = {"n": formats.count(len(pairs)), "order": _same_order(pairs)}
    infos = [poller.descriptions.get(key) for key in (champion, shadow)]
    # A score and a probability have no common scale.
    if all(info and info.maximum is None for info in infos):
        found["difference"] = formats.percent(fmean(abs(a - b) for a, b in pairs))
    return found


def _same_order(pairs: list[tuple[float, float]]) -> str:
    """Spearman's rank correlation; empty if one model has only one value.

    >>> _same_order([(0.1, 0.2), (0.2, 0.3), (0.3, 0.9)]), _same_order([(0.1, 0.2), (0.1, 0.3)])
    ('1.00', '')
    """
    try:
        found = correlation(*(_ranks(column) for column in zip(*pairs, strict=True)))
    except StatisticsError:
        return ""
    return formats.number(found, 2)


def _ranks(values: Sequence[float]) -> list[float]:
    """The ranks of the values; equal values have their mean rank.

    >>> _ranks([0.2, 0.5, 0.2])
    [1.5, 3.0, 1.5]
    """
    ordered = sorted(values)
    return [(bisect_left(ordered, v) + bisect_right(ordered, v) + 1) / 2 for v in values]


async def model(request: web.Request) -> web.Response:
    """Shows the description of a model."""
    poller = await ready(request)
    key = ModelKey(request.match_info["name"][:64], request.match_info["version"][:64])
    info = poller.descriptions.get(key)
    if info is None:
        used = poller.state.models
        if key not in chain([used.champion], used.shadows):
            raise web.HTTPNotFound(text=f"No model {key.name} {key.version} is in use.")
        info = ModelInfo(key)
    return render(
        request,
        "model",
        page=poller.shelf.ward(None).topic.content.get("page"),
        model=info,
        metrics=_metrics(info),
        thresholds={name: info.value(value) for name, value in info.thresholds.items()},
    )


def _metrics(info: ModelInfo) -> Fields:
    """The metrics of the model's evaluation: their names, and for each data set the pairs (value,
    interval) in the order of the names."""
    names = list(dict.fromkeys(chain.from_iterable(info.metrics.values())))
    return {
        "names": [METRICS.get(name, name.replace("_", " ")) for name in names],
        "rows": [
            (where, [_cell(figures.get(name)) for name in names])
            for where, figures in info.metrics.items()
        ],
    }


def _cell(figure: object) -> tuple[str, str]:
    if not isinstance(figure, dict) or not isinstance(figure.get("value"), int | float):
        return "", ""
    ends = [figure.get("low"), figure.get("high")]
    known = [formats.number(end, 3) for end in ends if isinstance(end, int | float)]
    interval = " to ".join(known) if len(known) == 2 else ""
    return formats.number(figure["value"], 3), interval
