"""The report: one HTML page, plots and style in it, nothing fetched from anywhere."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np

from modelapi.sklearn_model import libraries
from training import plots
from training.evaluation import Figure, Line
from training.groups import MOST_CHANNELS, absent, channels
from training.train import Result

STYLE = """
:root { --ink: #1f2933; --quiet: #52606d; --line: #d9e2ec; --main: #0b6e99; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 62rem;
       margin: 2rem auto 4rem; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin-bottom: .2rem; }
h2 { font-size: 1.2rem; margin-top: 2.6rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p.quiet, caption { color: var(--quiet); font-size: .88rem; }
.warn { border-left: 4px solid #b44d12; padding: .1rem 1rem .1rem 0; background: #fdf3ec;
        margin: 1rem 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; }
.tile { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.6rem; color: var(--main); }
.tile span { font-size: .82rem; color: var(--quiet); display: block; }
.plots { display: flex; flex-wrap: wrap; gap: .5rem .6rem; align-items: flex-end; }
.plots svg { max-width: 100%; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .6rem 0; width: 100%; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: right; padding: .22rem .5rem; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; }
th:first-child, td:first-child, td.note { text-align: left; }
td:first-child { min-width: 11rem; }
td.note { color: var(--quiet); min-width: 9rem; }
td.figure { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.figure small { color: var(--quiet); }
code { font-size: .85em; }
"""

TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "prevalence": "prevalence",
    "brier": "Brier",
    "brier_of_base_rate": "Brier of base rate",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
    "auroc_gain": "AUROC of this model less that",
}


def write(result: Result, version: str) -> Path:
    """Write NAME-VERSION.html into the config's reports folder and return its path."""
    config = result.config
    path = config.output.reports / f"{config.model.name}-{version}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"{config.model.title} ({config.model.name} {version})"
    page = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *_body(result),
        "</body></html>",
    ]
    path.write_text("\n".join(page) + "\n", encoding="utf-8")
    return path


def _body(result: Result) -> Iterable[str]:
    config, hour = result.config, result.config.report.hour
    head = result.headline[0]
    yield f'<p class="quiet">Event: {escape(config.label.event)}. Main figures: '
    yield f"{escape(head.name)}: {head.rows:,} rows, {head.events:,} events. "
    yield f"Intervals: 95 %, {config.report.resamples} bootstraps by patient.</p>"
    yield '<div class="warn">' + _list(config.card.limits) + "</div>"
    yield _tiles(head.figures)
    yield _table(result.headline, "All of these are of patients the model was not fitted to")
    yield f"<h2>Who is in it, at {hour} h</h2>"
    yield _who(result)

    figures = head.figures
    yield f"<h2>Discrimination and calibration at {hour} h</h2><div class='plots'>"
    yield plots.roc(result.scores, figures["auroc"])
    yield plots.precision_recall(result.scores, figures["auprc"])
    yield plots.calibration(
        result.scores, figures["calibration_slope"], figures["calibration_intercept"]
    )
    yield "</div>"
    yield "<p class='quiet'>Calibration: slope 1 and intercept 0 are right. A slope below 1 means "
    yield "predictions too extreme; an intercept above 0, predictions too low on the whole.</p>"

    if len(result.hours) > 1:
        yield "<h2>By hour of the stay</h2><div class='plots'>"
        hours = [int(line.name) for line in result.hours]
        for metric, name, target in (
            ("auroc", "AUROC", 0.5),
            ("auprc", "AUPRC", None),
            ("calibration_slope", "calibration slope", 1.0),
        ):
            yield plots.by_hour(
                hours, [line.figures[metric] for line in result.hours], name, target
            )
        yield "</div>"
        yield _table(result.hours, "The last reading before each hour", first="hour")

    yield f"<h2>Against baselines, the same rows at {hour} h</h2>"
    ours = Line(
        "This model",
        head.rows,
        head.events,
        {name: figures[name] for name in ("auroc", "auprc", "brier")},
    )
    yield _table(
        [ours, *result.baselines],
        "Brier of a baseline: after recalibration on training. Differences of AUROC: with the same "
        "bootstraps for both",
    )
    yield _forest([ours, *result.baselines], 0.5)

    yield f"<h2>Subgroups at {hour} h</h2>"
    if result.subgroups:
        yield _forest(result.subgroups, figures["auroc"].value)
        yield _table(result.subgroups, "Groups of at least 100 rows and 20 events")
    else:
        yield "<p>No group has enough rows and events.</p>"

    if result.without:
        yield f"<h2>What each channel is worth at {hour} h</h2>"
        yield "<p class='quiet'>Gradient boosting, uncalibrated, fitted anew to the rows of this "
        yield "hour alone. Channels tell of each other: a small loss is not a small meaning.</p>"
        everything = result.without[0].figures["auroc"].value
        yield _forest([*result.without, *result.alone], everything)
        yield _table([*result.without, *result.alone], "")

    yield "<h2>Acting on it</h2>"
    yield _points(result)
    yield "<h2>Data, and what was left out</h2>"
    yield _data(result)
    yield "<h2>How it was made</h2>"
    yield _method(result)


def _tiles(figures: dict[str, Figure]) -> str:
    shown = [
        ("AUROC", "auroc", ""),
        ("AUPRC", "auprc", f"prevalence {figures['prevalence'].value:.3f}"),
        ("Brier", "brier", f"base rate {figures['brier_of_base_rate'].value:.4f}"),
        ("Slope", "calibration_slope", "calibration, 1 is right"),
        ("Intercept", "calibration_intercept", "calibration, 0 is right"),
    ]
    tiles = []
    for title, name, note in shown:
        figure = figures[name]
        digits = 4 if name == "brier" else 3
        tiles.append(
            '<div class="tile">{}<b>{}</b><span>{}</span>'.format(title, *figure.text(digits))
            + f"<span>{note or '&nbsp;'}</span></div>"
        )
    return '<div class="tiles">' + "".join(tiles) + "</div>"


def _table(lines: Sequence[Line], caption: str, first: str = "") -> str:
    names = list(dict.fromkeys(name for line in lines for name in line.figures))
    notes = any(line.note for line in lines)
    head = "".join(f"<th>{TITLES[name]}</th>" for name in names)
    rows = []
    for line in lines:
        cells = "".join(_cell(line.figures.get(name), name) for name in names)
        note = f'<td class="note">{escape(line.note)}</td>' if notes else ""
        rows.append(
            f"<tr><td>{escape(line.name)}</td><td>{line.rows:,}</td><td>{line.events:,}</td>"
            f"{cells}{note}</tr>"
        )
    return (
        f"<div class='table'><table><caption>{escape(caption)}</caption><thead><tr>"
        f"<th>{escape(first)}</th><th>rows</th><th>events</th>{head}"
        f"{'<th></th>' if notes else ''}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(figure: Figure | None, name: str) -> str:
    if figure is None:
        return "<td></td>"
    if name in ("prevalence", "brier_of_base_rate"):
        return f'<td class="figure">{figure.value:.3f}</td>'
    return '<td class="figure">{}<br><small>{}</small></td>'.format(*figure.text())


def _who(result: Result) -> str:
    hour = result.config.report.hour
    sides = [result.train.at(hour), result.test.at(hour)]
    lines = [
        ("patients", [f"{len(np.unique(side.patients)):,}" for side in sides]),
        ("rows", [f"{len(side.y):,}" for side in sides]),
        ("event", [f"{side.y.sum():,} ({side.y.mean():.1%})" for side in sides]),
    ]
    ages = [np.nanpercentile(side.about["age"], [25, 50, 75]) for side in sides]
    lines.append(("age, median (quartiles)", [f"{b:.0f} ({a:.0f} to {c:.0f})" for a, b, c in ages]))
    if "unit" in sides[0].about:
        shares = [side.about["unit"].astype(str).value_counts(normalize=True) for side in sides]
        for unit in sorted(set(shares[0].index) | set(shares[1].index)):
            lines.append((f"unit: {unit}", [f"{share.get(unit, 0.0):.1%}" for share in shares]))
    if len(channels(result.features)) <= MOST_CHANNELS:
        for channel in channels(result.features):
            known = [f"{1 - absent(side, result.features, channel).mean():.1%}" for side in sides]
            lines.append((f"{channel} known", known))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, cells in lines
    )
    return (
        "<table><caption>Known: any of the model's features of that channel is not missing. Sides "
        "that differ here are a reason for figures that differ.</caption><thead><tr><th></th>"
        f"<th>training</th><th>test</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _forest(lines: Sequence[Line], line: float) -> str:
    figures = [each.figures["auroc"] for each in lines]
    return plots.forest([each.name for each in lines], figures, "AUROC", line)


def _points(result: Result) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{point.threshold:.3f}</td>"
        + "".join(
            '<td class="figure">{}<br><small>{}</small></td>'.format(*figure.percent)
            for figure in (point.sensitivity, point.specificity, point.ppv, point.flagged)
        )
        + "".join(
            _cell(figure, "net_benefit") for figure in (point.net_benefit, point.of_acting_on_all)
        )
        + "</tr>"
        for name, point in result.points.items()
    )
    return (
        "<div class='table'><table><caption>Acting at or above a threshold. The balanced one flags "
        "as many rows as there are events and was chosen on these rows; min(sensitivity, PPV) "
        "there is the PhysioNet 2012 challenge's event 1. Net benefit: true positives less false "
        "ones, per row, a false one weighed by the odds of the threshold; where it is not above "
        "both 0 (acting on nobody) and that of acting on all, the threshold is not worth acting "
        "on.</caption><thead><tr><th></th><th>threshold</th><th>sensitivity</th>"
        "<th>specificity</th><th>PPV</th><th>flagged</th><th>net benefit</th>"
        f"<th>of acting on all</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _data(result: Result) -> str:
    config = result.config
    parts = [
        (name, len(part.y), len(part.about.groupby(["pat_id", "date_admission"])), part.y.mean())
        for name, part in (("training", result.train), ("test", result.test))
    ]
    items = [f"{name}: {rows:,} rows of {stays:,} stays, {rate:.1%} with the event"
             for name, rows, stays, rate in parts]  # fmt: skip
    items += [f"{n:,} × {why}" for why, n in result.left_out.items()]
    items += config.card.left_out
    if result.dropped:
        names = ", ".join(feature.name for feature in result.dropped)
        items.append(f"{len(result.dropped)} features too few stays have: {names}")
    return _list(items)


def _method(result: Result) -> str:
    config = result.config
    names = ", ".join(f"<code>{feature.name}</code>" for feature in result.features)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    versions = ", ".join(f"{name} {version}" for name, version in libraries().items())
    hours = ", ".join(map(str, config.data.sample_hours))
    more = ", ".join(map(str, config.data.more_hours))
    items = [
        f"Kind: {config.model.kind}. Seed {config.model.seed}. Made {made} with {versions}.",
        f"Readings from {escape(result.source)}. SHA-256 of data and outcomes: "
        f"<code>{result.digest}</code>",
        f"Each stay gives a row at each of the hours {hours}: its last reading since the hour "
        "before in the list. A row knows nothing of what came after it."
        + (f" Rows at the hours {more} were trained on too, and judged nothing." if more else ""),
        "No patient is on both sides of a split, nor in two folds.",
        f"The artifact is fitted to training and test rows together, {len(result.final.y):,} rows; "
        "the figures above are of the models fitted to one side.",
        f"{len(result.features)} features: {names}",
    ]
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
