"""Computes the aggregations of `wire.features`, from running statistics or a window's readings."""

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
    """Each number minus the mean; exactly 0 where all are equal."""
    first = numbers[0]
    rests = [number - first for number in numbers]
    mean = fsum(rests) / len(rests)
    return [rest - mean for rest in rests]


def _window_std(times: list[float], values: list[float]) -> Value:
    if len(values) < 2:
        return None
    return sqrt(fsum([rest * rest for rest in _deviations(values)]) / (len(values) - 1))


def _window_trend(times: list[float], values: list[float]) -> Value:
    if times[0] == times[-1]:
        return None
    hours = _deviations(times)
    return fsum(map(mul, hours, _deviations(values))) / fsum(map(mul, hours, hours))


# The arguments are a window's times and values, in order of time and never empty.
WINDOWED: dict[str, Callable[[list[float], list[float]], Value]] = {
    "last": lambda times, values: values[-1],
    "first": lambda times, values: values[0],
    "min": lambda times, values: min(values),
    "max": lambda times, values: max(values),
    "mean": lambda times, values: fsum(values) / len(values),
    "std": _window_std,
    "count": lambda times, values: len(values),
    "trend": _window_trend,
    "delta": lambda times, values: values[-1] - values[0],
}
