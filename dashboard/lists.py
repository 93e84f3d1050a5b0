"""The pages without live updates: all patients, and the models."""

from itertools import chain
from statistics import fmean

from aiohttp import web

from dashboard import formats
from dashboard.beds import discharged_fields, listed_fields
from dashboard.database import Database
from dashboard.model_info import ModelInfo
from dashboard.pages import ready, render, stream_of, view_of
from dashboard.poller import Poller
from dashboard.rows import ModelKey, Stay
from dashboard.topic import Fields
from dashboard.views import ViewKey, WardView
from dashboard.ward import Ranked, Ward

PAGE = 100
SHOWS = {
    "": "all patients in the ICU",
    "alarm": "with an alarm",
    "none": "without a risk",
    "old": "with an old risk",
}
# Maximum number of stays on which a shadow is compared with the champion.
COMPARED = 2_000


async def patients(request: web.Request) -> web.Response:
    """Shows all patients in the ICU, or those whose number, name or place contains the text of ?q=.
    Redirects to a patient whose number or identifier is exactly this text.
    """
    poller = await ready(request)
    stream = stream_of(request, poller)
    view = await view_of(poller, ViewKey(stream, None))
    assert isinstance(view, WardView)
    wanted = request.query.get("q", "").strip()[:64]
    show = request.query.get("show", "")
    others: list[Stay] = []
    if wanted:
        exact, others = await _search(
            poller, stream or poller.state.current or "", wanted, view.ward
        )
        if exact is not None:
            raise web.HTTPSeeOther(f"/patients/{exact}{view.query}")
    found = _listed(view.ward, wanted.casefold(), show)
    page = request.query.get("page", "1")
    at = int(page) if page.isascii() and page.isdecimal() and len(page) < 6 else 1
    shown = found[(at - 1) * PAGE : at * PAGE]
    status = 404 if wanted and not found and not others else 200
    return render(
        request,
        "patients",
        status=status,
        page=view.topic.content.get("page"),
        query=view.query,
        stream=view.key.stream,
        wanted=wanted,
        show=show if show in SHOWS else "",
        shows=SHOWS,
        model=poller.model,
        count=formats.count(len(found)),
        rows=[listed_fields(each, view.ward, poller.model, view.query) for each in shown]
        if view.ward
        else [],
        others=[discharged_fields(stay, view.query) for stay in others],
        at=at,
        last=max(1, -(-len(found) // PAGE)),
    )


def _listed(ward: Ward | None, wanted: str, show: str) -> list[Ranked]:
    found = ward.ranked if ward else []
    if ward and show == "alarm":
        found = [each for each in found if each.stay.key in ward.alarms.on]
    elif show == "none":
        found = [each for each in found if each.risk is None]
    elif show == "old":
        found = [each for each in found if each.risk and each.risk.at != each.summary.last_at]
    return [each for each in found if _matches(each.stay, wanted)]


def _matches(stay: Stay, wanted: str) -> bool:
    texts = (str(stay.key.pat_id), stay.identifier or "", stay.place or "")
    return any(wanted in text.casefold() for text in texts)


async def _search(
    poller: Poller, stream: str, wanted: str, ward: Ward | None
) -> tuple[int | None, list[Stay]]:
    """The stays of the patient whose number or identifier is exactly `wanted`, or else of the
    discharged patients whose number or identifier contains it.
    """
    digits = wanted.removeprefix("-")
    is_number = digits.isascii() and digits.isdecimal() and len(digits) < 20

    def search(database: Database) -> list[Stay]:
        found = database.named(stream, wanted)
        if is_number and -(2**63) <= int(wanted) < 2**63:
            found += database.stays_of(stream, int(wanted))
        return found

    exact = {stay.key.pat_id for stay in await poller.query(search)}
    if len(exact) == 1:
        return exact.pop(), []
    discharged = ward.discharged if ward else []
    return None, [stay for stay in discharged if _matches(stay, wanted.casefold())]


async def models(request: web.Request) -> web.Response:
    """Shows the champion and the shadows, and how well they agree on the patients in the ICU."""
    poller = await ready(request)
    used = poller.state.models
    ward = poller.shelf.ward(None).ward
    rows: list[Fields] = []
    if used.champion is not None:
        rows = [_described(poller, used.champion, "champion", {})]
        for shadow in used.shadows:
            agreement = await _agreement(poller, used.champion, shadow, ward)
            rows.append(_described(poller, shadow, "shadow", agreement))
    return render(
        request,
        "models",
        page=poller.shelf.ward(None).topic.content.get("page"),
        rows=rows,
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
    """The mean absolute difference and the rank correlation between two models, for the readings
    with the latest risk of at most COMPARED patients."""
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
    return {
        "n": formats.count(len(pairs)),
        "difference": formats.percent(fmean(abs(a - b) for a, b in pairs)),
        "order": _same_order(pairs),
    }


def _same_order(pairs: list[tuple[float, float]]) -> str:
    """Spearman's rank correlation, without a correction for ties.

    >>> _same_order([(0.1, 0.2), (0.2, 0.3), (0.3, 0.9)])
    '1.00'
    """
    n = len(pairs)
    ranks = []
    for column in zip(*pairs, strict=True):
        order = sorted(range(n), key=column.__getitem__)
        rank = [0] * n
        for position, index in enumerate(order):
            rank[index] = position
        ranks.append(rank)
    squares = sum((a - b) ** 2 for a, b in zip(*ranks, strict=True))
    return formats.number(1 - 6 * squares / (n * (n * n - 1)), 2)


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


def _metrics(info: ModelInfo) -> list[tuple[str, str, str, str]]:
    """The metrics of the model's evaluation, as (data set, metric, value, interval)."""
    return [
        (
            where,
            name.replace("_", " "),
            formats.number(figure["value"]),
            f"{formats.number(figure['low'])} to {formats.number(figure['high'])}"
            if "low" in figure and "high" in figure
            else "",
        )
        for where, figures in info.metrics.items()
        for name, figure in figures.items()
        if isinstance(figure, dict) and isinstance(figure.get("value"), int | float)
    ]
