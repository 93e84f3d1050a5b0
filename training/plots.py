"""The report's plots, as SVG to be put into the page."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from sklearn.metrics import precision_recall_curve, roc_curve

from training.calibration import bins as calibration_bins
from training.evaluation import Figure, Scores

INK, MAIN, QUIET = "#1f2933", "#0b6e99", "#9aa5b1"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "icu-stream",  # the same plot gives the same bytes
}


@mpl.rc_context(STYLE)
def roc(scores: Scores, area: Figure) -> str:
    """ROC curve."""
    false, true, _ = roc_curve(scores.y, scores.probability)
    canvas, axes = _canvas()
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--")
    axes.plot(false, true, color=MAIN)
    _label(axes, "false positive rate", "sensitivity", f"AUROC {area}")
    return svg(canvas)


@mpl.rc_context(STYLE)
def precision_recall(scores: Scores, area: Figure) -> str:
    """Precision-recall curve, with the prevalence as the line to beat."""
    precision, recall, _ = precision_recall_curve(scores.y, scores.probability)
    canvas, axes = _canvas()
    rate = scores.y.mean()
    axes.axhline(rate, color=QUIET, linewidth=1, linestyle="--")
    axes.annotate(
        f"prevalence {rate:.1%}", (0, rate), (3, -10), textcoords="offset points", color=INK
    )
    axes.plot(recall[:-1], precision[:-1], color=MAIN)
    axes.set_ylim(0, 1.02)
    _label(axes, "sensitivity", "positive predictive value", f"AUPRC {area}")
    return svg(canvas)


@mpl.rc_context(STYLE)
def calibration(scores: Scores, slope: Figure, intercept: Figure) -> str:
    """Observed share against predicted probability, by tenths; the histogram below them."""
    bins = np.array(calibration_bins(scores.y, scores.probability))
    canvas = Canvas(figsize=(3.25, 3.25), layout="constrained")
    axes, below = canvas.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    top = min(1.0, max(float(bins[:, [0, 3]].max()) * 1.08, 0.1))
    axes.plot([0, top], [0, top], color=QUIET, linewidth=1, linestyle="--")
    error = np.abs(bins[:, 2:].T - bins[:, 1])
    axes.errorbar(bins[:, 0], bins[:, 1], error, color=MAIN, marker="o", markersize=4, capsize=2)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    title = f"slope {slope}\nintercept {intercept}"
    _label(axes, "", "observed share", title)
    below.hist(scores.probability, bins=np.linspace(0, top, 41), color=QUIET)
    below.set_yticks([])
    _label(below, "predicted probability (tenths of the rows)", "rows", "")
    return svg(canvas)


@mpl.rc_context(STYLE)
def by_hour(hours: Sequence[int], figures: Sequence[Figure], name: str, line: float | None) -> str:
    """A figure over the hours of the stay, with its interval."""
    canvas, axes = _canvas()
    axes.fill_between(
        hours,
        [f.low for f in figures],
        [f.high for f in figures],
        color=MAIN,
        alpha=0.18,
        linewidth=0,
    )
    axes.plot(hours, [f.value for f in figures], color=MAIN, marker="o", markersize=3.5)
    if line is not None:
        axes.axhline(line, color=QUIET, linewidth=1, linestyle="--")
    axes.set_xlim(0, max(hours) * 1.02)
    _label(axes, "hours since the first reading", name, "")
    return svg(canvas)


@mpl.rc_context(STYLE)
def forest(names: Sequence[str], figures: Sequence[Figure], label: str, line: float) -> str:
    """Figures one under the other, with their intervals and a line to compare with."""
    canvas = Canvas(figsize=(9.6, 0.7 + 0.27 * len(names)), layout="constrained")
    axes = canvas.subplots()
    for place, figure in enumerate(figures):
        axes.plot([figure.low, figure.high], [place, place], color=MAIN, linewidth=1.4)
        axes.plot(figure.value, place, color=MAIN, marker="o", markersize=4.5)
    axes.axvline(line, color=QUIET, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    _label(axes, label, "", "")
    return svg(canvas)


def _canvas() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(3.25, 3.25), layout="constrained")
    return canvas, canvas.subplots()


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=8.5, color=INK, loc="left")


def svg(canvas: Canvas) -> str:
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
