"""Figures of probabilities: discrimination and calibration, with intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training import calibration
from training.arrays import Flags, Floats, Integers
from training.bootstraps import Cells, redrawn

#: With fewer patients with the event, or fewer without it, calibration is not estimable.
FEWEST_PATIENTS = 10
#: A figure has no interval if a larger share of its bootstraps has no value. Bootstraps with only
#: one outcome are not counted, unless the figure needs only one.
MOST_WITHOUT = 0.025
NEEDS_PATIENTS = ("calibration_slope", "calibration_intercept")


@dataclass(frozen=True)
class Figure:
    """A figure with the 2.5th and 97.5th percentile of its bootstraps.

    value is NaN if the figure is not estimable; low and high are NaN if it has no interval.
    """

    value: float
    low: float = np.nan
    high: float = np.nan

    @property
    def estimable(self) -> bool:
        """Whether there is a value."""
        return not np.isnan(self.value)

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return not np.isnan(self.low)

    def text(self, digits: int = 3) -> tuple[str, str]:
        """The value and its interval as texts."""
        if not self.estimable:
            return "not estimable", ""
        if not self.bounded:
            return f"{self.value:.{digits}f}", "no interval"
        return f"{self.value:.{digits}f}", f"{self.low:.{digits}f} to {self.high:.{digits}f}"

    @property
    def percent(self) -> tuple[str, str]:
        """The value and its interval in percent; a dash and an empty text if there is none."""
        if not self.estimable:
            return "–", ""
        interval = f"{self.low:.1%} to {self.high:.1%}" if self.bounded else ""
        return f"{self.value:.1%}", interval

    def __str__(self) -> str:
        value, interval = self.text()
        return f"{value} ({interval})" if interval else value


@dataclass(frozen=True)
class Line:
    """A line of a table of figures: name, numbers of rows and events, and metrics."""

    name: str
    rows: int
    events: int
    figures: dict[str, Figure]
    note: str = ""


@dataclass(frozen=True)
class Scores:
    """Outcomes (y, 0 or 1) and predictions of the same rows."""

    y: Integers
    probability: Floats
    patients: Integers
    weight: Floats | None = None

    def where(self, chosen: Flags) -> "Scores":
        """The rows whose flag is set."""
        weight = None if self.weight is None else self.weight[chosen]
        return Scores(self.y[chosen], self.probability[chosen], self.patients[chosen], weight)

    @property
    def weights(self) -> Floats:
        """The weight of each row, by default 1."""
        return np.ones(len(self.y)) if self.weight is None else self.weight

    @property
    def both(self) -> bool:
        """Whether both outcomes occur, as figures of ranking need."""
        return bool(0 < self.y.sum() < len(self.y))


Metric = Callable[[Integers, Floats, Floats], float]
# The metrics take rows in descending order of probability, and weights. So a bootstrap only changes
# the weights, and does not have to sort.


def auroc(y: Integers, p: Floats, w: Floats) -> float:
    """Area under the ROC curve."""
    true, false = _at_thresholds(y, p, w)
    return float(np.trapezoid(true, false) / (true[-1] * false[-1]))


def auprc(y: Integers, p: Floats, w: Floats) -> float:
    """Area under the precision-recall curve, as average precision."""
    true, false = _at_thresholds(y, p, w)
    flagged = true + false
    precision = np.divide(true, flagged, out=np.zeros(len(true)), where=flagged > 0)
    return float((np.diff(true) * precision[1:]).sum() / true[-1])


def brier(y: Integers, p: Floats, w: Floats) -> float:
    """Mean squared difference of probability and outcome."""
    return float(np.average((p - y) ** 2, weights=w))


def predicted(y: Integers, p: Floats, w: Floats) -> float:
    """Mean probability."""
    return float(np.average(p, weights=w))


def prevalence(y: Integers, p: Floats, w: Floats) -> float:
    """Share of rows with the event, which is the AUPRC of a model without information."""
    return float(np.average(y, weights=w))


def brier_of_base_rate(y: Integers, p: Floats, w: Floats) -> float:
    """Brier score of a model that always predicts the prevalence."""
    rate = prevalence(y, p, w)
    return rate * (1 - rate)


def slope(y: Integers, p: Floats, w: Floats) -> float:
    """Calibration slope: 1 is ideal; below 1 the predictions are too extreme, above 1 too
    moderate."""
    return calibration.line(y, p, w)[1]


def _at_thresholds(y: Integers, p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """The weights of true and of false positives at each distinct threshold, from the highest
    threshold to the lowest."""
    edges = np.append(p[1:] != p[:-1], True)
    true = np.cumsum(w * y)[edges]
    false = np.cumsum(w * (1 - y))[edges]
    return np.insert(true, 0, 0.0), np.insert(false, 0, 0.0)


METRICS: dict[str, Metric] = {
    "auroc": auroc,
    "auprc": auprc,
    "prevalence": prevalence,
    "brier": brier,
    "brier_of_base_rate": brier_of_base_rate,
    "calibration_slope": slope,
    "calibration_intercept": calibration.shift,
}
ON_REQUEST: dict[str, Metric] = {"predicted": predicted}
ALL_METRICS = METRICS | ON_REQUEST
RANKING = ("auroc", "auprc")
#: These metrics need only one outcome.
WITHOUT_EVENTS = ("predicted", "prevalence", "brier", "brier_of_base_rate")


def evaluate(
    scores: Scores, resamples: int, seed: int, metrics: tuple[str, ...] = tuple(METRICS)
) -> dict[str, Figure]:
    """The metrics with intervals from `resamples` bootstraps of whole patients.

    Metrics that need both outcomes are not estimable if one is missing. Calibration is not
    estimable if fewer than FEWEST_PATIENTS patients have the event, or fewer than that do not.
    """
    possible = [name for name in metrics if _estimable(scores, name)]
    order = np.argsort(-scores.probability, kind="stable")
    y, p, weight = scores.y[order], scores.probability[order], scores.weights[order]
    drawn: dict[str, list[float]] = {name: [] for name in possible}
    if possible:
        cells = Cells.of(y, p, scores.patients[order], weight)
        for w in cells.redrawn(resamples, seed):
            both = w @ cells.y > 0 and w @ (1 - cells.y) > 0
            for name in possible:
                if both or name in WITHOUT_EVENTS:
                    drawn[name].append(ALL_METRICS[name](cells.y, cells.p, w))
    return {
        name: figure(ALL_METRICS[name](y, p, weight), drawn[name])
        if name in possible
        else Figure(np.nan)
        for name in metrics
    }


def _estimable(scores: Scores, metric: str) -> bool:
    if metric in WITHOUT_EVENTS:
        return len(scores.y) > 0
    if metric not in NEEDS_PATIENTS:
        return scores.both
    with_event, without = (len(np.unique(scores.patients[scores.y == y])) for y in (1, 0))
    return min(with_event, without) >= FEWEST_PATIENTS


def figure(value: float, drawn: list[float]) -> Figure:
    """Makes a figure from its value and the values in its bootstraps."""
    values = np.array(drawn)
    known = values[np.isfinite(values)]
    if np.isnan(value) or len(known) < (1 - MOST_WITHOUT) * len(values) or not len(known):
        return Figure(value)
    return Figure(value, *(float(q) for q in np.percentile(known, [2.5, 97.5])))


def auroc_gain(one: Scores, other: Scores, resamples: int, seed: int) -> Figure:
    """The AUROC of `one` minus that of `other`, on the same rows.

    Both are computed on the same bootstraps, so that the difficulty of a sample cancels.
    """
    orders = [np.argsort(-scores.probability, kind="stable") for scores in (one, other)]

    def gain(w: Floats) -> float:
        areas = [
            auroc(scores.y[order], scores.probability[order], w[order])
            for scores, order in zip((one, other), orders, strict=True)
        ]
        return areas[0] - areas[1]

    if not one.both:
        return Figure(np.nan)
    bootstraps = redrawn(one.patients, one.weights, resamples, seed)
    drawn = [gain(w) for w in bootstraps if w @ one.y > 0 and w @ (1 - one.y) > 0]
    return figure(gain(one.weights), drawn)


@dataclass(frozen=True)
class Judge:
    """Computes lines of figures, all with the same number of bootstraps and the same seed."""

    resamples: int
    seed: int

    def line(
        self, name: str, scores: Scores, metrics: tuple[str, ...] = tuple(METRICS), note: str = ""
    ) -> Line:
        """Evaluates `scores`; returns a line with this name."""
        figures = evaluate(scores, self.resamples, self.seed, metrics)
        return Line(name, len(scores.y), int(scores.y.sum()), figures, note)

    def gain(self, one: Scores, other: Scores) -> Figure:
        """The `auroc_gain` of `one` over `other`."""
        return auroc_gain(one, other, self.resamples, self.seed)
