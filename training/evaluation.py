"""How good probabilities are: discrimination, calibration, and how sure one can be of either."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TINY = 1e-9  # keeps log odds finite
NEWTON_STEPS = 50
CONVERGED = 1e-9


@dataclass(frozen=True)
class Figure:
    """A figure with the 2.5th and 97.5th percentile of its bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def percent(self) -> tuple[str, str]:
        """The value in percent and its interval; a dash and nothing where there is none."""
        if np.isnan(self.value):
            return "–", ""
        return f"{self.value:.1%}", f"{self.low:.1%} to {self.high:.1%}"


@dataclass(frozen=True)
class Line:
    """A line of a table of figures: who or what, how many, and how good."""

    name: str
    rows: int
    events: int
    figures: dict[str, Figure]
    note: str = ""


@dataclass(frozen=True)
class Scores:
    """What was predicted and what happened, a row each; y is 0 or 1."""

    y: Integers
    probability: Floats
    patients: Integers
    weight: Floats | None = None

    def where(self, chosen: NDArray[np.bool_]) -> "Scores":
        """The chosen rows."""
        weight = None if self.weight is None else self.weight[chosen]
        return Scores(self.y[chosen], self.probability[chosen], self.patients[chosen], weight)

    @property
    def both(self) -> bool:
        """Whether both outcomes occur, without which nothing can be told apart."""
        return bool(0 < self.y.sum() < len(self.y))


Metric = Callable[[Integers, Floats, Floats], float]
# Metrics take rows in falling order of probability, with a weight each: a bootstrap is then
# another weight for the same rows, and nothing is sorted again.


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


def prevalence(y: Integers, p: Floats, w: Floats) -> float:
    """Share of rows with the event; the AUPRC of a model that knows nothing."""
    return float(np.average(y, weights=w))


def brier_of_base_rate(y: Integers, p: Floats, w: Floats) -> float:
    """Brier score of saying the prevalence each time."""
    rate = prevalence(y, p, w)
    return rate * (1 - rate)


def slope(y: Integers, p: Floats, w: Floats) -> float:
    """Calibration slope: 1 is right, below 1 means too extreme, above 1 too timid."""
    return calibration(y, p, w)[1]


def intercept(y: Integers, p: Floats, w: Floats) -> float:
    """Calibration in the large, slope held at 1: 0 is right, above 0 means too low on the whole."""
    offset, shift = _log_odds(p), 0.0
    for _ in range(NEWTON_STEPS):
        q = _logistic(offset + shift)
        step = float(w @ (y - q)) / max(float(w @ (q * (1 - q))), TINY)
        shift += step
        if abs(step) < CONVERGED:
            break
    return shift


def calibration(y: Integers, p: Floats, w: Floats) -> tuple[float, float]:
    """Intercept and slope of a logistic regression of the outcome on the log odds (Cox 1958).

    (nan, nan) where all probabilities are the same.
    """
    x = _log_odds(p)
    if np.ptp(x) == 0:
        return np.nan, np.nan
    a, b = 0.0, 1.0
    for _ in range(NEWTON_STEPS):
        q = _logistic(a + b * x)
        rest, v = w * (y - q), w * q * (1 - q)
        s0, s1, s2 = v.sum(), v @ x, v @ (x * x)
        g0, g1 = rest.sum(), rest @ x
        determinant = max(s0 * s2 - s1 * s1, TINY)
        da, db = (s2 * g0 - s1 * g1) / determinant, (s0 * g1 - s1 * g0) / determinant
        a, b = a + float(da), b + float(db)
        if abs(da) + abs(db) < CONVERGED:
            break
    return a, b


def _at_thresholds(y: Integers, p: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Weight of true and of false positives at each different threshold, from none to all."""
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
    "calibration_intercept": intercept,
}
RANKING = ("auroc", "auprc")


def evaluate(
    scores: Scores, resamples: int, seed: int, metrics: tuple[str, ...] = tuple(METRICS)
) -> dict[str, Figure]:
    """The metrics with intervals from `resamples` bootstraps of whole patients."""
    order = np.argsort(-scores.probability, kind="stable")
    y, p = scores.y[order], scores.probability[order]
    weight = np.ones(len(y)) if scores.weight is None else scores.weight[order]
    values = {name: METRICS[name](y, p, weight) for name in metrics}
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    for w in _redrawn(scores.patients[order], weight, resamples, seed):
        if w @ y > 0 and w @ (1 - y) > 0:
            for name in metrics:
                drawn[name].append(METRICS[name](y, p, w))
    return {
        name: Figure(values[name], *(float(q) for q in np.percentile(drawn[name], [2.5, 97.5])))
        for name in metrics
    }


def auroc_gain(one: Scores, other: Scores, resamples: int, seed: int) -> Figure:
    """How much greater `one`'s AUROC is than `other`'s, both of the same rows.

    Of the same bootstraps too: what makes a draw of patients easy is taken off both.
    """
    orders = [np.argsort(-scores.probability, kind="stable") for scores in (one, other)]

    def gain(w: Floats) -> float:
        areas = [
            auroc(scores.y[order], scores.probability[order], w[order])
            for scores, order in zip((one, other), orders, strict=True)
        ]
        return areas[0] - areas[1]

    weight = np.ones(len(one.y)) if one.weight is None else one.weight
    drawn = []
    for w in _redrawn(one.patients, weight, resamples, seed):
        if w @ one.y > 0 and w @ (1 - one.y) > 0:
            drawn.append(gain(w))
    return Figure(gain(weight), *(float(q) for q in np.percentile(drawn, [2.5, 97.5])))


@dataclass(frozen=True)
class Judge:
    """Makes lines, all with the same number of bootstraps and the same seed."""

    resamples: int
    seed: int

    def line(
        self, name: str, scores: Scores, metrics: tuple[str, ...] = tuple(METRICS), note: str = ""
    ) -> Line:
        """Evaluate `scores` under a name."""
        figures = evaluate(scores, self.resamples, self.seed, metrics)
        return Line(name, len(scores.y), int(scores.y.sum()), figures, note)

    def gain(self, one: Scores, other: Scores) -> Figure:
        """`auroc_gain` of the one over the other."""
        return auroc_gain(one, other, self.resamples, self.seed)

    def point(self, scores: Scores, threshold: float) -> "OperatingPoint":
        """`operating_point` of the scores."""
        return operating_point(scores, threshold, self.resamples, self.seed)


def calibration_bins(scores: Scores, bins: int = 10) -> list[tuple[float, float, float, float]]:
    """For tenths of the rows by probability: mean probability, observed share and its 95 %
    interval (Wilson).
    """
    result = []
    for part in np.array_split(np.argsort(scores.probability, kind="stable"), bins):
        if not len(part):
            continue
        n, share = len(part), float(scores.y[part].mean())
        z = 1.96
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        result.append((float(scores.probability[part].mean()), share, middle - half, middle + half))
    return result


@dataclass(frozen=True)
class OperatingPoint:
    """What acting at or above a threshold would mean: shares of rows. ppv of no row is NaN.

    net_benefit, of_acting_on_all: true positives less false ones, these weighed by the odds of
    the threshold, per row (Vickers and Elkin 2006); of acting on nobody it is 0.
    """

    threshold: float
    sensitivity: Figure
    specificity: Figure
    ppv: Figure
    flagged: Figure
    net_benefit: Figure
    of_acting_on_all: Figure


def operating_point(scores: Scores, threshold: float, resamples: int, seed: int) -> OperatingPoint:
    """An operating point, with intervals bootstrapped by patient."""
    flagged, event = scores.probability >= threshold, scores.y == 1
    groups = np.column_stack([flagged & event, flagged & ~event, ~flagged & ~event, event])
    odds = threshold / max(1 - threshold, TINY)

    def shares(w: Floats) -> list[float]:
        hits, alarms, quiet, events = w @ groups
        rows, others = w.sum(), alarms + quiet
        return [
            hits / max(events, TINY),
            quiet / max(others, TINY),
            hits / (hits + alarms) if hits + alarms else np.nan,
            (hits + alarms) / rows,
            (hits - odds * alarms) / rows,
            (events - odds * others) / rows,
        ]

    weight = np.ones(len(event)) if scores.weight is None else scores.weight
    drawn = np.array([shares(w) for w in _redrawn(scores.patients, weight, resamples, seed)])
    figures = []
    for value, column in zip(shares(weight), drawn.T, strict=True):
        known = column[~np.isnan(column)] if not np.isnan(value) else np.array([np.nan])
        figures.append(Figure(float(value), *map(float, np.percentile(known, [2.5, 97.5]))))
    return OperatingPoint(threshold, *figures)


def _redrawn(patients: Integers, weight: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """The rows' weights in each bootstrap: as often as the row's patient was drawn."""
    _, patient = np.unique(patients, return_inverse=True)
    count = patient.max() + 1
    draw = np.random.default_rng(seed)
    for _ in range(resamples):
        yield weight * np.bincount(draw.integers(count, size=count), minlength=count)[patient]


def balanced_threshold(scores: Scores) -> float:
    """The threshold that flags as many rows as there are events.

    There sensitivity equals positive predictive value; the smaller of the two, which was
    event 1 of the PhysioNet 2012 challenge, is about as great as it can be.
    """
    events = int(scores.y.sum())
    return float(np.sort(scores.probability)[::-1][max(events - 1, 0)])


def _log_odds(p: Floats) -> Floats:
    clipped = np.clip(p, TINY, 1 - TINY)
    result: Floats = np.log(clipped / (1 - clipped))
    return result


def _logistic(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return result
