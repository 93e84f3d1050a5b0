"""Computes the drift figures of one stream day from its stay-days and the model's reference."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from wire.drift import SPAN_HOURS, Channel, Expected, Reference, psi

#: The number of last stays whose outcomes are compared; with fewer stays there is no band.
OUTCOMES = 200
#: Standard errors on each side of a band: 1 % of a calibrated model's figures are outside.
Z = 2.576
#: A larger share of rejected messages raises an alert.
REJECTED = 0.05


class Figure(NamedTuple):
    """A figure and its band. The limits of the band are None while there are too few stays.
    parameter: empty for a figure of all readings.
    """

    parameter: str
    name: str
    stays: int
    value: float | None
    low: float | None
    high: float | None

    @property
    def alert(self) -> bool:
        """Whether the value is outside the band."""
        if self.value is None or self.low is None or self.high is None:
            return False
        return not self.low <= self.value <= self.high


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
        """The time that the readings span."""
        return _hours(self.last) - _hours(self.first)

    @property
    def counts(self) -> bool:
        """Whether the readings span at least SPAN_HOURS."""
        return self.hours >= SPAN_HOURS


def _hours(at: str) -> float:
    return int(at[11:13]) + int(at[14:16]) / 60 + int(at[17:19]) / 3600


def inputs(reference: Reference, days: Sequence[StayDay]) -> list[Figure]:
    """The volume, the known share and the stability index of each parameter."""
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
    """Alarms per patient-day. This figure has no band, because training does not know how often a
    rule raises an alarm."""
    patient_days = sum(day.hours for day in days) / 24
    return Figure(
        "", "alarms", len(days), count / patient_days if patient_days else None, None, None
    )


def rejected(messages: int, count: int) -> Figure:
    """The share of rejected messages."""
    return Figure("", "rejected", 0, count / messages if messages else None, 0.0, REJECTED)


def outcomes(pairs: Sequence[tuple[float, float]]) -> list[Figure]:
    """The ratio of observed to expected events, and the Brier score. pairs: (probability, outcome)
    of each stay. The bands are those of a calibrated model, Z standard errors wide on each side.
    The band of the Brier score is Spiegelhalter's test (Statistics in Medicine 1986;5:421-433).
    """
    n = len(pairs)
    expected = sum(p for p, _ in pairs)
    if not expected:
        return []
    variance = sum(p * (1 - p) for p, _ in pairs)
    of_ratio = math.sqrt(variance) / expected
    of_brier = math.sqrt(sum(p * (1 - p) * (1 - 2 * p) ** 2 for p, _ in pairs)) / n
    ratio = sum(y for _, y in pairs) / expected
    brier = sum((p - y) ** 2 for p, y in pairs) / n
    return [
        Figure("", name, n, value, *_around(middle, error, n))
        for name, value, middle, error in (
            ("observed_expected", ratio, 1.0, of_ratio),
            ("brier", brier, variance / n, of_brier),
        )
    ]


def _around(middle: float, error: float, stays: int) -> tuple[float | None, float | None]:
    if stays < OUTCOMES:
        return None, None
    return middle - Z * error, middle + Z * error


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
