"""Figures of a threshold: sensitivity, predictive value, net benefit."""

from dataclasses import dataclass

import numpy as np

from training.arrays import Floats
from training.bootstraps import redrawn
from training.evaluation import Figure, Scores, figure

TINY = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """The figures of a threshold. A row is flagged if its prediction is at or above the threshold.

    sensitivity is NaN if no row has the event, specificity if all rows have it, and ppv if no row
    is flagged. net_benefit, of_acting_on_all: per row, true positives minus false positives times
    the odds of the threshold (Vickers and Elkin 2006). Acting on nobody has a net benefit of 0.
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
            hits / events if events else np.nan,
            quiet / others if others else np.nan,
            hits / (hits + alarms) if hits + alarms else np.nan,
            (hits + alarms) / rows,
            (hits - odds * alarms) / rows,
            (events - odds * others) / rows,
        ]

    drawn = np.array([shares(w) for w in redrawn(scores.patients, scores.weights, resamples, seed)])
    rates, others = drawn.T[:2], drawn.T[2:]
    # A bootstrap with only one outcome is left out of the interval of sensitivity or specificity. A
    # bootstrap that flags no row counts as one without a PPV.
    columns = [*(rate[~np.isnan(rate)] for rate in rates), *others]
    figures = [
        figure(value, column.tolist())
        for value, column in zip(shares(scores.weights), columns, strict=True)
    ]
    return OperatingPoint(threshold, *figures)


def net_benefit(scores: Scores, thresholds: Floats) -> tuple[Floats, Floats]:
    """The net benefit at each threshold: of the model, and of acting on all."""
    order = np.argsort(scores.probability)
    p, y, w = scores.probability[order], scores.y[order], scores.weights[order]
    first = np.searchsorted(p, thresholds, side="left")
    odds = thresholds / (1 - thresholds)

    def above(weight: Floats) -> Floats:
        total = np.append(np.cumsum(weight[::-1])[::-1], 0.0)
        return np.asarray(total[first])

    rows, events = w.sum(), float(w @ y)
    ours = (above(w * y) - odds * above(w * (1 - y))) / rows
    return ours, (events - odds * (rows - events)) / rows


def balanced_threshold(scores: Scores) -> float:
    """The threshold that flags as many rows as there are events.

    At this threshold, sensitivity equals positive predictive value. The smaller of the two, which
    was the score of event 1 of the PhysioNet 2012 challenge, is about maximal.
    """
    events = int(scores.y.sum())
    return float(np.sort(scores.probability)[::-1][max(events - 1, 0)])
