"""Computes the aggregations of `wire.features` from running statistics or a window's readings;
`tool.features` computes the aggregation `age`.
"""

from collections.abc import Callable
from math import fsum, sqrt
from operator import attrgetter, mul

from tool.statistics import Statistics

Value = float | None  # None: missing


def _std(statistics: Statistics) -> Value:
    return sqrt(statistics.m2 / (statistics.n - 1)) if statistics.n > 1 else None


def _trend(statistics: Statistics) -> Value:
    if statistics.first_at < statistics.last_at:
        return statistics.covariance / statistics.hours_m2
    return None


def _delta(statistics: Statistics) -> Value:
    return statistics.last_value - statistics.first_value


RUNNING: dict[str, Callable[[Statistics], Value]] = {
    "last": attrgetter("last_value"),
    "first": attrgetter("first_value"),
    "min": attrgetter("minimum"),
    "max": attrgetter("maximum"),
    "mean": attrgetter("mean"),
    "std": _std,
    "count": attrgetter("n"),
    "trend": _trend,
    "delta": _delta,
}


def _deviations(numbers: list[float]) -> list[float]:
    """Each number minus the mean; exactly 0 if all numbers are equal."""
    first = numbers[0]
    rests = [number - first for number in numbers]
    mean = fsum(rests) / len(rests)
    return [rest - mean for rest in rests]


def windowed(times: list[float], values: list[float], spread: bool) -> tuple[Value, ...]:
    """The aggregations of the readings in a window, in the order of WINDOWED. times, values: in
    order of time, not empty. spread: whether to compute std and trend, which take longest."""
    count = len(values)
    first, last = values[0], values[-1]
    std = trend = None
    if spread and count > 1:
        deviations = _deviations(values)
        std = sqrt(fsum(map(mul, deviations, deviations)) / (count - 1))
        if times[0] < times[-1]:
            hours = _deviations(times)
            trend = fsum(map(mul, hours, deviations)) / fsum(map(mul, hours, hours))
    mean = fsum(values) / count
    return last, first, min(values), max(values), mean, std, count, trend, last - first


WINDOWED = ("last", "first", "min", "max", "mean", "std", "count", "trend", "delta")
SPREAD = {WINDOWED.index("std"), WINDOWED.index("trend")}
