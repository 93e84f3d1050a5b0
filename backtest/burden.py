"""Computes alarm burden: how often a model raises alarms, how early, and how many are false.

With E events, A alarms and a prediction window (w0, w1] in hours:

    alarms per patient-day  A / (hours in the ICU / 24)
    event sensitivity       share of events with an alarm w0 to w1 hours before them
    PPV                     share of true alarms among the alarms
    NNE                     number needed to evaluate, 1 / PPV
    lead time               hours from the first true alarm to the event

An alarm is true if the event occurs in the window after it. Each stay must have a known outcome, so
each alarm is either true or false.
Sources: Hyland et al. 2020 (circEWS), Wong et al. 2021 (Epic), Kipnis et al. 2016 (AAM).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from backtest.paths import Predictions, StayPath
from wire.alarms import Policy


@dataclass(frozen=True)
class Burden:
    """The figures of one policy.

    detected: the number of events with a true alarm. lead_hours: the lead times of the events with
    a known time. A ratio is NaN if its denominator is 0; `median_lead` is NaN without lead times.
    """

    threshold: float
    alarms: int
    patient_days: float
    events: int
    detected: int
    true_alarms: int
    lead_hours: tuple[float, ...]

    @property
    def per_patient_day(self) -> float:
        return self.alarms / self.patient_days if self.patient_days else float("nan")

    @property
    def sensitivity(self) -> float:
        return self.detected / self.events if self.events else float("nan")

    @property
    def ppv(self) -> float:
        return self.true_alarms / self.alarms if self.alarms else float("nan")

    @property
    def nne(self) -> float:
        return self.alarms / self.true_alarms if self.true_alarms else float("nan")

    @property
    def median_lead(self) -> float:
        return float(np.median(self.lead_hours)) if self.lead_hours else float("nan")


def burden(stays: Sequence[StayPath], policy: Policy) -> Burden:
    """The figures of a policy over all stays.

    An event without a time counts in any window, so all alarms of its stay are true.
    """
    return _burden(Predictions.of(stays), policy)


def _burden(predictions: Predictions, policy: Policy) -> Burden:
    low, high = policy.window_hours
    alarms = events = detected = true = 0
    hours = 0.0
    leads: list[float] = []
    for path, rung in zip(predictions.stays, predictions.alarms(policy), strict=True):
        timeless = path.event and np.isnan(path.event_at)
        hits = [at for at in rung if timeless or low < path.event_at - at <= high]
        alarms += len(rung)
        hours += path.observed
        events += path.event
        detected += bool(hits)
        true += len(hits)
        if hits and not timeless:
            leads.append(path.event_at - hits[0])
    return Burden(policy.at, alarms, hours / 24, events, detected, true, tuple(leads))


def thresholds(paths: Sequence[StayPath], count: int = 20) -> list[float]:
    """Thresholds in descending order: `count` evenly spaced quantiles of the stays' highest
    probabilities, without 0 and without repeats; empty if there is no prediction."""
    highest = np.sort([path.probability.max() for path in paths if len(path.probability)])
    if not len(highest):
        return []
    shares = np.linspace(0.02, 1.0, count)
    found = np.quantile(highest, 1 - shares)
    return sorted({float(value) for value in found if value > 0}, reverse=True)


def curve(stays: Sequence[StayPath], policy: Policy, at: Iterable[float]) -> list[Burden]:
    """The burden at each threshold. The policy's `clear` is scaled with the threshold; its other
    members stay the same."""
    predictions = Predictions.of(stays)
    found = []
    for threshold in at:
        clear = None if policy.clear is None else threshold * policy.clear / max(policy.at, 1e-12)
        changed = msgspec.structs.replace(policy, at=threshold, clear=clear)
        found.append(_burden(predictions, changed))
    return found


def within_budget(points: Iterable[Burden], per_patient_day: float) -> Burden | None:
    """The point with the highest sensitivity among those with at most `per_patient_day` alarms per
    patient-day; of equals, the one with the fewest alarms. None if there is no such point."""
    fitting = [point for point in points if point.per_patient_day <= per_patient_day]
    return max(fitting, key=lambda point: (point.sensitivity, -point.alarms), default=None)
