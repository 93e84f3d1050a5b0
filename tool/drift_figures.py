"""Computes the drift figures of one stream day from its stay-days and the model's reference."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from wire.drift import SPAN_HOURS, Channel, Expected, Reference, psi

#: The number of newest outcomes that are compared; with fewer there is no band.
OUTCOMES = 200
#: Standard errors on each side of a band. With a calibrated model, 2 % of the ratios and 0.01 % of
#: the Brier scores are outside their bands. The ratio has the narrower band, because it shows a
#: shift of all probabilities, and the Brier score does not.
Z_RATIO = 2.326
Z_BRIER = 3.891
#: Least half width of a band. If all probabilities are equal, the number of events determines the
#: Brier score, except for rounding.
ROUNDING = 1e-9
#: A larger share of rejected messages raises an alert.
REJECTED = 0.05


class Figure(NamedTuple):
    """A figure and its band. low, high: the limits of the band; None if the figure has no band or
    there are too few stays for one. value: None if there is nothing to compute it from. parameter:
    empty for a figure that is not about one parameter.
    """

    parameter: str
    name: str
    stays: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def side(self) -> int:
        """1 if the value is above the band, -1 if it is below the band, or else 0."""
        if self.value is None or self.low is None or self.high is None:
            return 0
        return int(self.value > self.high) - int(self.value < self.low)

    @property
    def alert(self) -> bool:
        """Whether the value is outside the band."""
        return self.side != 0


class StayDay:
    """The readings of one stay on one day, in the order of the stream."""

    def __init__(self, seq: int) -> None:
        self.first = ""
        self.last = ""
        self.first_seq = self.last_seq = seq
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, seq: int, measured_at: str, parameter: str, value: float) -> None:
        self.first = min(self.first or measured_at, measured_at)
        self.last = max(self.last, measured_at)
        self.last_seq = seq
        self.values[parameter].append(value)

    @property
    def hours(self) -> float:
        """The time from the earliest to the latest reading, in hours."""
        return _hours(self.last) - _hours(self.first)

    @property
    def counts(self) -> bool:
        """Whether the readings span at least SPAN_HOURS."""
        return self.hours >= SPAN_HOURS


def _hours(at: str) -> float:
    return int(at[11:13]) + int(at[14:16]) / 60 + int(at[17:19]) / 3600


def inputs(reference: Reference, days: Sequence[StayDay]) -> list[Figure]:
    """Three figures per parameter: readings per stay-day (volume), the share of the stay-days with
    a reading (known), and the population stability index of the values (psi)."""
    figures = []
    for parameter, channel in reference.channels.items():
        values = [day.values[parameter] for day in days if day.values.get(parameter)]
        n, known = len(days), len(values)
        readings = sum(map(len, values))
        figures += [
            _figure(parameter, "volume", channel.volume, n, readings / n if n else None),
            _figure(parameter, "known", channel.known, n, known / n if n else None),
            _figure(parameter, "psi", channel.psi, known, _stability(channel, values)),
        ]
    return figures


def risk(reference: Reference, probabilities: Sequence[float]) -> Figure:
    """The mean of the last probabilities of the stay-days."""
    n = len(probabilities)
    return _figure("", "risk", reference.risk, n, sum(probabilities) / n if n else None)


def alarms(count: int, days: Collection[StayDay]) -> Figure:
    """Alarms per patient-day. The patient-days are the hours between the first and the last reading
    of each stay-day, divided by 24. This figure has no band, because training does not know how
    often a rule raises an alarm."""
    patient_days = sum(day.hours for day in days) / 24
    return Figure(
        "", "alarms", len(days), count / patient_days if patient_days else None, None, None
    )


def rejected(messages: int, count: int) -> Figure:
    """The share of rejected messages."""
    return Figure("", "rejected", 0, count / messages if messages else None, 0.0, REJECTED)


def outcomes(pairs: Sequence[tuple[float, float]]) -> list[Figure]:
    """The ratio of observed to expected events, and the Brier score. pairs: (probability, outcome)
    of each stay. Empty without pairs, or if every probability is 0 or 1.

    The bands are those of a calibrated model. The ratio is the most powerful test of a constant
    shift of the log odds, because the number of events is sufficient for it. The test of the Brier
    score is Spiegelhalter's (Statistics in Medicine 1986;5:421-433), given the number of events, so
    that too many events are not reported twice.
    """
    n = len(pairs)
    expected = sum(p for p, _ in pairs)
    variances = [p * (1 - p) for p, _ in pairs]
    variance = sum(variances)
    if not variance:
        return []
    weights = [1 - 2 * p for p, _ in pairs]
    common = sum(v * w for v, w in zip(variances, weights, strict=True)) / variance
    remaining = sum(v * (w - common) ** 2 for v, w in zip(variances, weights, strict=True))
    excess = sum(y for _, y in pairs) - expected
    brier = sum((p - y) ** 2 for p, y in pairs) / n
    middle = (variance + common * excess) / n
    ratio_error, brier_error = math.sqrt(variance) / expected, math.sqrt(remaining) / n
    return [
        _tested("observed_expected", n, 1 + excess / expected, 1.0, Z_RATIO * ratio_error),
        _tested("brier", n, brier, middle, Z_BRIER * brier_error),
    ]


def _tested(name: str, stays: int, value: float, middle: float, half: float) -> Figure:
    if stays < OUTCOMES:
        return Figure("", name, stays, value, None, None)
    half = max(half, ROUNDING)
    return Figure("", name, stays, value, middle - half, middle + half)


def after(figure: Figure, before: Figure | None) -> Figure:
    """The figure, with a narrower band if it was an alert on the previous day.

    An alert ends only when the value reaches the middle of the band. Otherwise a value close to an
    edge would raise alerts again and again. Until then, the band ends at its middle on that side.
    """
    if before is None or not before.alert or figure.low is None or figure.high is None:
        return figure
    middle = (figure.low + figure.high) / 2
    return figure._replace(high=middle) if before.side > 0 else figure._replace(low=middle)


def _stability(channel: Channel, values: Sequence[Sequence[float]]) -> float | None:
    if not values:
        return None
    shares = [0.0] * len(channel.shares)
    for some in values:
        each = 1 / len(some) / len(values)
        for value in some:
            shares[channel.bin(value)] += each
    return psi(channel.shares, shares)


def _figure(
    parameter: str, name: str, expected: Expected, stays: int, value: float | None
) -> Figure:
    band = expected.band(stays)
    low, high = (band.low, band.high) if band else (None, None)
    return Figure(parameter, name, stays, value, low, high)


def alerts(figures: Iterable[Figure]) -> Mapping[str, int]:
    """The number of alerts by kind: inputs, predictions, outcomes."""
    kinds = {"risk": "predictions", "observed_expected": "outcomes", "brier": "outcomes"}
    found = dict.fromkeys(("inputs", "predictions", "outcomes"), 0)
    for figure in figures:
        found[kinds.get(figure.name, "inputs")] += figure.alert
    return found
