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


class Window:
    """The readings in a window, in order of time, and the values computed from them."""

    __slots__ = ("_deviations", "found", "times", "values")

    def __init__(self, times: list[float], values: list[float]) -> None:
        self.times = times
        self.values = values
        self._deviations: list[float] | None = None
        self.found: dict[Callable[[Window], Value], Value] = {}

    @property
    def deviations(self) -> list[float]:
        if self._deviations is None:
            self._deviations = _deviations(self.values)
        return self._deviations


def _window_std(window: Window) -> Value:
    rests = window.deviations
    return sqrt(fsum(map(mul, rests, rests)) / (len(rests) - 1)) if len(rests) > 1 else None


def _window_trend(window: Window) -> Value:
    if window.times[0] == window.times[-1]:
        return None
    hours = _deviations(window.times)
    return fsum(map(mul, hours, window.deviations)) / fsum(map(mul, hours, hours))


# The window is never empty.
WINDOWED: dict[str, Callable[[Window], Value]] = {
    "last": lambda window: window.values[-1],
    "first": lambda window: window.values[0],
    "min": lambda window: min(window.values),
    "max": lambda window: max(window.values),
    "mean": lambda window: fsum(window.values) / len(window.values),
    "std": _window_std,
    "count": lambda window: len(window.values),
    "trend": _window_trend,
    "delta": lambda window: window.values[-1] - window.values[0],
}
