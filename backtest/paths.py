"""Computes the alarms of all stays of a history in one pass, by the rule of `wire.alarms`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.arrays import Floats, Integers
from wire.alarms import Policy

HOUR = 3600


@dataclass(frozen=True)
class StayPath:
    """One stay's predictions of one model, in the order of the stream.

    hours: the time of each prediction, in hours since the stay's first reading. observed: hours
    from the first to the last reading. event: whether the event happened. event_at: the time of the
    event, in hours since the first reading; NaN if unknown.
    """

    hours: Floats
    probability: Floats
    observed: float
    event: bool
    event_at: float = float("nan")


@dataclass(frozen=True)
class Predictions:
    """The predictions of all stays: the first prediction of each stay, then the second prediction
    of each stay, and so on.

    order: indices of the stays, by descending number of predictions. ends: for each k, the index
    after the last of the k-th predictions. clock, first: for each prediction, the latest and the
    earliest time of its stay so far, in seconds.
    """

    stays: Sequence[StayPath]
    order: Integers
    ends: Integers
    clock: Integers
    first: Integers
    probability: Floats

    @classmethod
    def of(cls, stays: Sequence[StayPath]) -> "Predictions":
        """Arranges the predictions of these stays. A stay may have any number of predictions."""
        lengths = np.array([len(stay.hours) for stay in stays], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        numbers = np.arange(lengths.max(initial=0))
        counts = len(stays) - np.searchsorted(np.sort(lengths), numbers, side="right")
        ends = np.cumsum(counts)
        starts = ends - counts
        clock, first = np.zeros((2, lengths.sum()), dtype=np.int64)
        probability = np.zeros(lengths.sum())
        for column, place in enumerate(order):
            stay = stays[place]
            chosen = starts[: lengths[place]] + column
            # A late prediction counts at the latest time that its stay has reached.
            seconds = np.rint(stay.hours * HOUR).astype(np.int64)
            clock[chosen] = np.maximum.accumulate(seconds)
            first[chosen] = np.minimum.accumulate(seconds)
            probability[chosen] = stay.probability
        return cls(stays, order, ends, clock, first, probability)

    def alarms(self, policy: Policy) -> list[list[float]]:
        """The times of each stay's alarms, including repeated ones, in hours. Applies the rule of
        `wire.alarms.step` to the k-th predictions of all stays at once.
        """
        rung: list[list[float]] = [[] for _ in self.stays]
        rule = _Rule(policy, len(self.stays))
        start = 0
        for end in self.ends:
            clock, passed = self.clock[start:end], self.clock[start:end] - self.first[start:end]
            for column in rule.step(clock, passed, self.probability[start:end]):
                rung[self.order[column]].append(float(clock[column]) / HOUR)
            start = end
        return rung


class _Rule:
    """The rule and its state for all stays. Times are in seconds; NaN means never."""

    def __init__(self, policy: Policy, stays: int) -> None:
        self._at = policy.at
        self._clear = policy.at if policy.clear is None else policy.clear
        again = np.inf if policy.again_hours is None else policy.again_hours
        durations = (policy.for_hours, policy.silence_hours, again)
        self._persistence, self._silence, self._again = np.rint(np.multiply(durations, HOUR))
        learned = np.inf if policy.learned_hours is None else policy.learned_hours
        self._learned = np.rint(learned * HOUR)
        self._since = np.full(stays, np.nan)
        self._rung_at = np.full(stays, np.nan)
        self._raised = np.zeros(stays, dtype=bool)

    def step(self, clock: Integers, passed: Integers, probability: Floats) -> Integers:
        """Applies one prediction to each of the first `len(clock)` stays; returns the indices of
        the stays whose alarm is raised, or raised again. passed: the time since the stay's first
        prediction."""
        count = len(clock)
        since, rung_at = self._since[:count], self._rung_at[:count]
        raised = self._raised[:count]
        above = probability >= self._at
        since[~above] = np.nan
        begins = above & np.isnan(since)
        since[begins] = clock[begins]
        # A comparison with NaN is false, so a stay that has had no alarm is not silent.
        silent = clock - rung_at < self._silence
        rises = ~raised & above & (clock - since >= self._persistence) & ~silent
        repeats = raised & above & (clock - rung_at >= self._again)
        learned = passed < self._learned
        rises &= learned
        rings = rises | (repeats & learned)
        rung_at[rings] = clock[rings]
        raised[rises] = True
        raised[probability < self._clear] = False
        return np.flatnonzero(rings)
