"""Writes the report of a backtest: a page with plots, and the same figures as JSON."""

import math
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from backtest.burden import Burden
from backtest.figures import Backtest, ModelFigures
from training.evaluation import Figure, Line
from training.plots import INK, MAIN, QUIET, STYLE, svg
from training.recalibrate import Recalibration
from training.thresholds import net_benefit
from wire.alarms import Policy

COLOURS = (MAIN, "#b4531f", "#3d7a3d", "#7a4d9e")
# Published figures: alarms per patient-day, and sensitivity.
PUBLISHED = {"circEWS 2020": (1.2, 0.90), "AAM 2016": (1 / 35, 0.254)}


def write(backtest: Backtest, replay: dict[str, Any], folder: Path) -> Path:
    """Writes index.html into the folder, and returns its path."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["share"] = share
    environment.filters["number"] = number
    environment.filters["rule"] = rule
    page = environment.get_template("report.html.j2").render(
        backtest=backtest,
        replay=replay,
        side_by_side=side_by_side,
        timed=bool(backtest.models[0].history.stays["event_at"].notna().any()),
        burden_plot=burden_plot(backtest),
        calibration_plot=calibration_plot(backtest),
        decision_plot=decision_plot(backtest),
        lead_plot=lead_plot(backtest),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def side_by_side(
    models: list[ModelFigures], tables: str
) -> list[tuple[str, list[tuple[str, Line]]]]:
    """The lines of all models, grouped by the name of the line: (name, [(model, line), …]). tables:
    the attribute of ModelFigures that contains the lines.
    """
    found: dict[str, list[tuple[str, Line]]] = {}
    for model in models:
        for line in getattr(model, tables):
            found.setdefault(line.name, []).append((str(model.history.version), line))
    return list(found.items())


def as_json(backtest: Backtest, replay: dict[str, Any]) -> dict[str, Any]:
    """All figures as plain JSON; null means that a figure is not estimable."""
    return {
        "stream": backtest.stream,
        "label": backtest.label,
        "models": [_model(model) for model in backtest.models],
        "comparisons": [
            {
                "challenger": comparison.challenger,
                "readings": comparison.readings,
                "verdict": comparison.verdict,
                "auroc_gain": _figure(comparison.auroc),
                "brier_gain": _figure(comparison.brier),
            }
            for comparison in backtest.comparisons
        ],
        "recalibration": _recalibration(backtest.recalibration),
        "replay": replay,
    }


def _recalibration(found: Recalibration | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "intercept": found.intercept,
        "slope": found.slope,
        "patients": found.patients,
        "before": _line(found.before),
        "after": _line(found.after),
    }


def _line(line: Line) -> dict[str, list[float | None]]:
    return {name: _figure(figure) for name, figure in line.figures.items()}


def _model(model: ModelFigures) -> dict[str, Any]:
    rows = model.history.rows
    return {
        "model": str(model.history.version),
        "readings": len(rows),
        "stays": len(model.history.stays),
        "events": int(model.history.stays["event"].sum()),
        "excluded": dict(model.history.excluded.most_common()),
        **{name: _figure(figure) for name, figure in model.overall.items()},
        "by_hour": {line.name: _line(line) for line in model.bands},
        "by_subgroup": {line.name: _line(line) for line in model.subgroups},
        "alarms": _burden(model.alarms),
        "at_budget": _burden(model.budget) if model.budget else None,
    }


def _figure(figure: Figure) -> list[float | None]:
    return [_known(value) for value in (figure.value, figure.low, figure.high)]


def _burden(point: Burden) -> dict[str, float | None]:
    return {
        "threshold": point.threshold,
        "alarms": point.alarms,
        "alarms_per_patient_day": _known(point.per_patient_day),
        "sensitivity": _known(point.sensitivity),
        "ppv": _known(point.ppv),
        "nne": _known(point.nne),
        "median_lead_hours": _known(point.median_lead),
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def rule(policy: Policy) -> str:
    """An alarm rule in words.

    >>> rule(Policy(at=0.2, clear=0.15, for_hours=1, silence_hours=6))
    'after 1 h at 0.2 or above; cleared below 0.15; no other alarm for 6 h'
    """
    lasting = f"after {policy.for_hours:g} h " if policy.for_hours else ""
    parts = [f"{lasting}at {policy.at:g} or above"]
    if policy.clear is not None and policy.clear != policy.at:
        parts.append(f"cleared below {policy.clear:g}")
    if policy.again_hours is not None:
        parts.append(f"raised again after {policy.again_hours:g} h")
    if policy.silence_hours:
        parts.append(f"no other alarm for {policy.silence_hours:g} h")
    return "; ".join(parts)


def share(value: float) -> str:
    """A share in percent; a dash if it is not estimable.

    >>> share(0.123), share(float("nan"))
    ('12.3 %', '–')
    """
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"


def number(value: float) -> str:
    """A number with two decimals; a dash if it is not estimable."""
    return f"{value:,.2f}" if math.isfinite(value) else "–"


@mpl.rc_context(STYLE)
def burden_plot(backtest: Backtest) -> str:
    """Plots the event sensitivity against alarms per patient-day, with published points."""
    canvas, axes = _canvas()
    widest = max(1.5, 1.5 * backtest.per_patient_day)
    for colour, model in zip(COLOURS, backtest.models, strict=False):
        points = [p for p in model.curve if p.per_patient_day <= widest]
        axes.plot(
            [p.per_patient_day for p in points],
            [p.sensitivity for p in points],
            color=colour,
            marker=".",
            label=str(model.history.version),
        )
    for name, (alarms, sensitivity) in PUBLISHED.items():
        axes.plot(alarms, sensitivity, "x", color=INK)
        # A published point near the left edge is often close to a curve, so its label is placed
        # further to the right.
        axes.annotate(
            name,
            (alarms, sensitivity),
            (40, -12) if alarms < widest / 4 else (5, -12),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": QUIET, "linewidth": 0.6},
        )
    axes.axvline(backtest.per_patient_day, color=QUIET, linewidth=1, linestyle="--")
    axes.annotate(
        "budget", (backtest.per_patient_day, 0.55), (4, 0), textcoords="offset points", color=INK
    )
    axes.set_xlim(0, widest)
    axes.set_ylim(0, 1.02)
    return _finish(canvas, axes, "alarms per patient-day", "events with an alarm", "lower right")


@mpl.rc_context(STYLE)
def calibration_plot(backtest: Backtest) -> str:
    """Plots the observed share against the predicted probability, by tenths of the readings."""
    canvas, axes = _canvas()
    top = 0.05
    for colour, model in zip(COLOURS, backtest.models, strict=False):
        predicted, observed, _, _ = np.array(model.calibration).T
        axes.plot(predicted, observed, color=colour, marker=".", label=str(model.history.version))
        top = max(top, predicted.max(), observed.max())
    axes.plot([0, top], [0, top], color=QUIET, linewidth=1, linestyle="--")
    return _finish(canvas, axes, "predicted", "observed")


@mpl.rc_context(STYLE)
def decision_plot(backtest: Backtest) -> str:
    """Plots the net benefit at each threshold (Vickers and Elkin 2006)."""
    canvas, axes = _canvas()
    at = np.linspace(0.01, 0.5, 50)
    for colour, model in zip(COLOURS, backtest.models, strict=False):
        ours, _ = net_benefit(model.history.scores(), at)
        axes.plot(at, ours, color=colour, label=str(model.history.version))
    _, everybody = net_benefit(backtest.models[0].history.scores(), at)
    axes.plot(at, everybody, color=QUIET, linestyle="--", label="act on all patients")
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylim(bottom=-0.02)
    return _finish(canvas, axes, "threshold", "net benefit")


@mpl.rc_context(STYLE)
def lead_plot(backtest: Backtest) -> str:
    """Plots, for each lead time, the share of the detected events with at least this lead time. The
    lead time is in hours from the first true alarm to the event."""
    canvas, axes = _canvas()
    for colour, model in zip(COLOURS, backtest.models, strict=False):
        leads = np.sort(np.array(model.alarms.lead_hours))
        if len(leads):
            left = 1 - np.arange(len(leads)) / len(leads)
            axes.step(leads, left, color=colour, label=str(model.history.version))
    axes.set_ylim(0, 1.02)
    return _finish(
        canvas, axes, "hours before the event", "detected events with at least that lead"
    )


def _canvas() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(4.6, 3.4), layout="constrained")
    return canvas, canvas.subplots()


def _finish(
    canvas: Canvas, axes: Axes, x: str, y: str, legend: Literal["best", "lower right"] = "best"
) -> str:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(framealpha=1, edgecolor="none", loc=legend)
    return svg(canvas)
