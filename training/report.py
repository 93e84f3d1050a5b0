"""Writes the report: one self-contained HTML page with plots and styles."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from modelapi.sklearn_model import libraries
from training import plots
from training.database import KEY
from training.evaluate import Evaluation
from training.evaluation import Line
from training.groups import absent
from training.removal import channels
from training.rows import Rows
from training.train import Result
from wire.features import Feature

#: With more channels, the table of the patients omits them, because it would be too long.
MOST_CHANNELS = 8
TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "predicted": "predicted",
    "prevalence": "observed",
    "brier": "Brier",
    "brier_of_base_rate": "Brier of base rate",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
    "auroc_gain": "gain of this model in AUROC",
    "utility": "utility",
}
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
)


def metrics(lines: Sequence[Line]) -> list[str]:
    """The names of all metrics in the lines, without duplicates."""
    return list(dict.fromkeys(name for line in lines for name in line.figures))


def write_page(template: str, path: Path, **context: Any) -> Path:
    """Writes one HTML page and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page = TEMPLATES.get_template(template)
    text = page.render(plots=plots, titles=TITLES, metrics=metrics, **context)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def write(result: Result, version: str) -> Path:
    """Writes NAME-VERSION.html into the config's reports folder and returns its path."""
    config, judgement = result.config, result.judgement
    ours = judgement.headline[0]
    figures = {name: ours.figures[name] for name in ("auroc", "auprc", "brier")}
    everywhere = [line for line in result.headline[1:] if line.name.endswith("all sample hours")]
    return write_page(
        "report.html",
        config.output.reports / f"{config.model.name}-{version}.html",
        title=f"{config.model.title} ({config.model.name} {version})",
        config=config,
        hour=config.report.hour,
        result=result,
        judgement=judgement,
        tiles=[ours, *everywhere[:1]],
        ours=Line("This model", ours.rows, ours.events, figures),
        who=list(who(result.train, judgement.test, config.report.hour, result.features)),
        data=list(_data(result)),
        method=list(_method(result)),
    )


def write_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Writes evaluation-NAME-VERSION.html and, as JSON, its tables to the folder; returns the path
    of the page."""
    ref, judgement = evaluation.model.ref, evaluation.judgement
    path = folder / f"evaluation-{ref.model}-{ref.version}.html"
    tables = {
        name: [msgspec.to_builtins(line) for line in lines]
        for name, lines in (
            ("headline", judgement.headline),
            ("hours", judgement.hours),
            ("subgroups", judgement.subgroups),
            ("known", judgement.known),
            ("removed", judgement.stress),
            ("recalibrated", evaluation.recalibrated),
        )
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # JSON has no NaN, so a figure that is not estimable is null.
    text = msgspec.json.format(msgspec.json.encode(tables), indent=1)
    path.with_suffix(".json").write_bytes(text + b"\n")
    return write_page(
        "evaluation.html",
        path,
        title=f"{evaluation.model.manifest.title} ({ref}), evaluated",
        evaluation=evaluation,
        judgement=judgement,
        question=evaluation.question,
        patients=len(np.unique(evaluation.rows.patients)),
    )


def who(
    train: Rows, test: Rows, hour: int, features: list[Feature]
) -> Iterable[tuple[str, list[str]]]:
    """Yields one line per trait of the patients with a row at this hour: the trait's name, and its
    texts for the training and the test rows."""
    sides = [train.at(hour), test.at(hour)]
    yield "patients", [f"{len(np.unique(side.patients)):,}" for side in sides]
    yield "rows", [f"{len(side.y):,}" for side in sides]
    yield "event", [f"{side.y.sum():,} ({_share(side.y)})" for side in sides]
    ages = [np.nanpercentile(side.about["age"], [25, 50, 75]) for side in sides if len(side.y)]
    yield "age, median (quartiles)", [f"{b:.0f} ({a:.0f} to {c:.0f})" for a, b, c in ages]
    if "unit" in test.about and "unit" in train.about:
        shares = [side.about["unit"].astype(str).value_counts(normalize=True) for side in sides]
        for unit in sorted(set(shares[0].index) | set(shares[1].index)):
            yield f"unit: {unit}", [f"{share.get(unit, 0.0):.1%}" for share in shares]
    if len(channels(features)) <= MOST_CHANNELS:
        for channel in channels(features):
            known = [f"{1 - absent(side, features, channel).mean():.1%}" for side in sides]
            yield f"{channel} known", known


def _share(flags: Any) -> str:
    return f"{flags.mean():.1%}" if len(flags) else "–"


def _data(result: Result) -> Iterable[str]:
    for name, part in (("training", result.train), ("test", result.judgement.test)):
        stays = len(part.about.groupby(KEY))
        yield f"{name}: {len(part.y):,} rows of {stays:,} stays, {_share(part.y)} with the event"
    for reason, count in result.left_out.items():
        yield f"{count:,} × {reason}"
    yield from result.config.card.left_out
    if result.dropped:
        names = ", ".join(feature.name for feature in result.dropped)
        yield (
            f"{len(result.dropped)} features were dropped, because too few stays have them or they "
            f"have only one value: {names}"
        )


def _method(result: Result) -> Iterable[str]:
    config = result.config
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    versions = ", ".join(f"{name} {version}" for name, version in libraries().items())
    yield f"Kind: {config.model.kind}. Seed {config.model.seed}. Trained on {made} with {versions}."
    if config.model.removal:
        yield (
            f"Trained on each row twice: as charted, and with {config.model.removal:.0%} of the "
            "channels removed at random."
        )
    yield (
        f"Readings from {result.question.stream.source}. SHA-256 of data and outcomes: "
        f"{result.digest}"
    )
    hours = ", ".join(map(str, config.data.hours))
    more = ", ".join(map(str, config.data.more_hours))
    yield (
        f"Each stay has a row at each of the hours {hours}: its last reading since the "
        "previous hour in the list. A row contains nothing from after that reading."
        + (
            " An hour without a reading has a row with the features of the reading before, until "
            "the stay's last reading."
            if config.data.carry_forward
            else ""
        )
        + (f" Rows at the hours {more} were only used for training." if more else "")
    )
    yield "No patient is on both sides of a split or in two folds."
    if config.model.fit_on == "all":
        yield (
            f"The artifact is fitted to training and test rows together, {len(result.final.y):,} "
            "rows; the figures above are of models that were fitted to one side."
        )
    else:
        yield "The artifact is the evaluated model."
