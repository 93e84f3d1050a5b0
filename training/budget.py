"""Chooses a threshold that keeps an alarm rule within a number of alarms per patient and day.

The predictions are those at every reading of stays that the model was not fitted to, as in service.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from training.arrays import Floats
from training.database import KEY
from training.rows import Rows
from training.stream import HOUR, Stream
from wire.alarms import Policy, fold

#: Maximum number of stays whose alarms are counted.
STAYS = 500
#: Number of quantiles of the probabilities from which the threshold is chosen.
CANDIDATES = 1000


@dataclass(frozen=True)
class Path:
    """The predictions of a stay at every reading. hours: since the stay's first reading."""

    hours: Floats
    probability: Floats


def paths(stream: Stream, rows: Rows, probability: Floats) -> list[Path]:
    """The path of each stay. rows: the result of `training.rows.every_reading`. probability: the
    prediction for each row."""
    measured = stream.readings.loc[rows.about.index, "measured_at"]
    table = rows.about[KEY].assign(measured=measured, probability=probability)
    first = table.groupby(KEY)["measured"].transform("min")
    table["hours"] = (measured - first) / HOUR
    return [
        Path(stay["hours"].to_numpy(np.float64), stay["probability"].to_numpy(np.float64))
        for _, stay in table.groupby(KEY)
    ]


def alarms_per_day(stays: Sequence[Path], policy: Policy) -> float:
    """The number of alarms per patient and day, including repeated ones, up to `learned_hours`."""
    learned = np.inf if policy.learned_hours is None else policy.learned_hours
    alarms, hours = 0, 0.0
    for stay in stays:
        predictions = zip(range(len(stay.hours)), stay.hours, stay.probability, strict=True)
        alarms += sum(event.kind != "clear" for event in fold(policy, predictions))
        hours += min(float(stay.hours.max(initial=0)), learned)
    return alarms / (hours / 24) if hours else 0.0


def with_threshold(policy: Policy, at: float) -> Policy:
    """The rule with another threshold; its `clear` is scaled with the threshold."""
    clear = None if policy.clear is None else at * policy.clear / policy.at
    return msgspec.structs.replace(policy, at=at, clear=clear)


def threshold(stays: Sequence[Path], policy: Policy, budget: float) -> float:
    """The lowest threshold found with at most `budget` alarms per patient and day; 1 if there is
    none."""
    probability = np.concatenate([stay.probability for stay in stays])
    candidates = np.unique(np.quantile(probability, np.linspace(0, 1, CANDIDATES)))

    def within(at: float) -> bool:
        return alarms_per_day(stays, with_threshold(policy, at)) <= budget

    # A higher threshold can raise more alarms, because a long alarm becomes two. So bisection finds
    # a threshold within the budget, next to a lower one that exceeds it.
    low, high = -1, len(candidates)
    while high - low > 1:
        middle = (low + high) // 2
        if within(float(candidates[middle])):
            high = middle
        else:
            low = middle
    return float(candidates[high]) if high < len(candidates) else 1.0
