"""Draws the report's plots as inline SVG."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.special import expit, logit
from sklearn.metrics import precision_recall_curve, roc_curve

from training.evaluation import Figure, Line, Scores
from training.thresholds import OperatingPoint, net_benefit

#: The probabilities at which an axis on the scale of log odds may have ticks.
TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99)
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
    "svg.fonttype": "none",  # writes text as text instead of paths
    "svg.hashsalt": "icu-stream",  # makes the bytes reproducible
}


@mpl.rc_context(STYLE)
def roc(scores: Scores, area: Figure) -> str:
    """ROC curve."""
    false, true, _ = roc_curve(scores.y, scores.probability)
    canvas, axes = _canvas()
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--")
    axes.plot(false, true, color=MAIN)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _label(axes, "false positive rate", "sensitivity", f"AUROC {area}")
    return svg(canvas)


@mpl.rc_context(STYLE)
def precision_recall(scores: Scores, area: Figure) -> str:
    """Precision-recall curve, with the prevalence as baseline."""
    precision, recall, _ = precision_recall_curve(scores.y, scores.probability)
    canvas, axes = _canvas()
    rate = scores.y.mean()
    axes.axhline(rate, color=QUIET, linewidth=1, linestyle="--")
    axes.annotate(
        f"prevalence {rate:.1%}", (0, rate), (3, -10), textcoords="offset points", color=INK
    )
    axes.plot(recall[:-1], precision[:-1], color=MAIN)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _label(axes, "sensitivity", "positive predictive value", f"AUPRC {area}")
    return svg(canvas)


@mpl.rc_context(STYLE)
def calibration(
    scores: Scores, tenths: Sequence[tuple[float, ...]], slope: Figure, intercept: Figure
) -> str:
    """The observed rate against the predicted probability, by tenths of the rows, with a histogram
    below. Both axes are on the scale of log odds, because most tenths of a rare event are near 0.
    """
    bins = np.array(tenths)
    p = scores.probability
    low = max(0.001, min(float(np.quantile(p, 0.005)), 0.7 * float(bins[:, 0].min())))
    high = min(0.995, max(float(np.quantile(p, 0.999)), float(bins[:, 3].max()), 2 * low))
    canvas = Canvas(figsize=(3.25, 3.25), layout="constrained")
    axes, below = canvas.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    axes.plot([low, high], [low, high], color=QUIET, linewidth=1, linestyle="--")
    shown = np.clip(bins[:, 1:], low, high)  # a share of 0 has no log odds
    error = np.abs(shown[:, 1:].T - shown[:, 0])
    axes.errorbar(bins[:, 0], shown[:, 0], error, color=MAIN, marker="o", markersize=4, capsize=2)
    axes.set(xscale="logit", yscale="logit", xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(TICKS))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    title = f"slope {slope}\nintercept {intercept}"
    _label(axes, "", "observed share", title)
    below.hist(p, bins=expit(np.linspace(logit(low), logit(high), 41)), color=QUIET)
    below.set_yticks([])
    _label(below, "predicted probability (scale of log odds)", "rows", "")
    return svg(canvas)


@mpl.rc_context(STYLE)
def by_hour(lines: Sequence[Line], metric: str, name: str, target: float | None) -> str:
    """One figure at each hour of the stay, with its interval. lines: named by the hours."""
    canvas, axes = _canvas()
    hours = [int(line.name) for line in lines]
    figures = [line.figures[metric] for line in lines]
    low, high = [f.low for f in figures], [f.high for f in figures]
    axes.fill_between(hours, low, high, color=MAIN, alpha=0.18, linewidth=0)
    axes.plot(hours, [f.value for f in figures], color=MAIN, marker="o", markersize=3.5)
    if target is not None:
        axes.axhline(target, color=QUIET, linewidth=1, linestyle="--")
    axes.set_xlim(0, max(hours) * 1.02)
    _label(axes, "hours since the first reading", name, "")
    return svg(canvas)


@mpl.rc_context(STYLE)
def forest(lines: Sequence[Line], target: float, metric: str = "auroc", name: str = "AUROC") -> str:
    """A figure of each line with its interval, and a value for comparison."""
    canvas = Canvas(figsize=(9.6, 0.7 + 0.27 * len(lines)), layout="constrained")
    axes = canvas.subplots()
    for place, line in enumerate(lines):
        figure = line.figures[metric]
        axes.plot([figure.low, figure.high], [place, place], color=MAIN, linewidth=1.4)
        axes.plot(figure.value, place, color=MAIN, marker="o", markersize=4.5)
    axes.axvline(target, color=QUIET, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    _label(axes, name, "", "")
    return svg(canvas)


@mpl.rc_context(STYLE)
def decision_curve(scores: Scores, points: Mapping[str, OperatingPoint]) -> str:
    """Net benefit by threshold, compared with acting on all patients and on none."""
    top = min(0.95, max(0.2, 1.5 * max((p.threshold for p in points.values()), default=0.5)))
    at = np.linspace(0.005, top, 200)
    ours, everyone = net_benefit(scores, at)
    canvas = Canvas(figsize=(9.6, 3.0), layout="constrained")
    axes = canvas.subplots()
    axes.axhline(0, color=QUIET, linewidth=1)
    axes.plot(at, everyone, color=QUIET, linewidth=1, linestyle="--")
    axes.plot(at, ours, color=MAIN)
    axes.annotate("nobody", (top, 0), (-4, -10), textcoords="offset points", ha="right", color=INK)
    near = int(np.argmax(everyone < 0.55 * everyone[0]))
    axes.annotate("all", (at[near], everyone[near]), (6, 2), textcoords="offset points", color=INK)
    for point in points.values():
        axes.plot(point.threshold, point.net_benefit.value, "o", color=MAIN, markersize=4)
    highest = float(max(ours.max(), everyone.max()))
    axes.set_ylim(-0.12 * highest, 1.08 * highest)
    axes.set_xlim(0, top)
    _label(axes, "threshold (dots: thresholds of the table)", "net benefit", "")
    return svg(canvas)


def _canvas() -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(3.25, 3.25), layout="constrained")
    return canvas, canvas.subplots()


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=8.5, color=INK, loc="left")


def svg(canvas: Canvas) -> str:
    """Returns the plot as an SVG element, with its title and axes as a text for screen readers."""
    first, last = canvas.axes[0], canvas.axes[-1]
    words = [first.get_title(loc="left"), first.get_ylabel(), last.get_xlabel()]
    name = escape(", ".join(word.replace("\n", ", ") for word in words if word))
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
