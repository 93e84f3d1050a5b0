"""The utility score of the PhysioNet/Computing in Cardiology Challenge 2019 (Reyna et al. 2020).

An alarm has the highest utility six hours before the event, and none from three hours after it. It
has a small cost if there is no event, or if the event is more than twelve hours ahead. From six
hours before the event to three hours after it, a missing alarm has a cost, which grows to 2.
"""

import numpy as np

from training.arrays import Flags, Floats
from training.bootstraps import redrawn
from training.evaluation import Figure, Judge, Scores, figure
from training.rows import Rows

EARLY, OPTIMAL, LATE = -12.0, -6.0, 3.0
BEST, MISSED, FALSE_ALARM = 1.0, -2.0, -0.05
#: Number of quantiles of the probabilities that `best_threshold` compares.
THRESHOLDS = 200


def row_utilities(after_event: Floats, alarm: Flags) -> Floats:
    """The utility of each row. after_event: hours since the event; negative before the event, NaN
    if there is none.

    >>> row_utilities(np.array([-6.0, -6.0, np.nan]), np.array([True, False, True])).tolist()
    [1.0, 0.0, -0.05]
    """
    t = after_event
    rising = np.maximum(BEST * (t - EARLY) / (OPTIMAL - EARLY), FALSE_ALARM)
    falling = BEST * (LATE - t) / (LATE - OPTIMAL)
    hit = np.where(t <= OPTIMAL, rising, falling)
    miss = np.where(t <= OPTIMAL, 0.0, MISSED * (t - OPTIMAL) / (LATE - OPTIMAL))
    value = np.where(alarm, hit, miss)
    value = np.where(t > LATE, 0.0, value)
    return np.where(np.isnan(t), np.where(alarm, FALSE_ALARM, 0.0), value)


def best_threshold(rows: Rows, probability: Floats) -> float:
    """The threshold with the greatest utility."""
    after = after_event(rows)
    candidates = np.unique(np.quantile(probability, np.linspace(0, 1, THRESHOLDS)))
    sums = [row_utilities(after, probability >= at).sum() for at in candidates]
    return float(candidates[int(np.argmax(sums))])


def evaluate(rows: Rows, scores: Scores, threshold: float, judge: Judge) -> Figure:
    """The normalised utility: 1 for the best possible alarms, 0 without any alarm."""
    after = after_event(rows)
    ours = row_utilities(after, scores.probability >= threshold)
    none = row_utilities(after, np.zeros(len(after), dtype=bool))
    best = row_utilities(after, (after >= EARLY) & (after <= LATE))

    def normalised(w: Floats) -> float:
        room = float(w @ (best - none))
        return float(w @ (ours - none)) / room if room > 0 else np.nan

    drawn = redrawn(scores.patients, scores.weights, judge.resamples, judge.seed)
    return figure(normalised(scores.weights), [normalised(w) for w in drawn])


def after_event(rows: Rows) -> Floats:
    """For each row, the hours since the event; negative before the event, NaN if there is none."""
    return np.asarray(-rows.about["ahead"].to_numpy(np.float64))
