"""Features of a stay as of now, kept up to date one reading at a time.

A model declares what it needs as names: `age` (the patient's, in years),
`blood_pressure__last`, `heart_rate__max__6h`. Of all readings of a parameter so
far, or of those in the window (T - 6 h, T], where T is the stay's clock: the
greatest time of any of its readings so far (a late one does not turn it back).

    last, first   value with the greatest, least (time, place in the stream)
    min, max, mean
    std           of the sample (n - 1); missing below two values
    count         0 when there is none
    trend         least-squares slope per hour; missing below two different times
    delta         last - first
    age           hours from the time of `last` to T

Missing is None. Times are hours since the midnight that began the stay's day of
admission, values are finite. Nothing in here reads a clock, a file or a network.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, inf, nan, sqrt
from operator import attrgetter, mul
from typing import Any

import msgspec

Value = float | None

# Times are whole seconds, which hours as floats cannot all say exactly. An edge
# half a second late is on the right side of every one of them.
HALF_SECOND = 0.5 / 3600


@dataclass(frozen=True, slots=True)
class Feature:
    """One declared feature. `age` alone has no parameter and no aggregation.

    >>> Feature.parse("heart_rate__max__6h")  # doctest: +NORMALIZE_WHITESPACE
    Feature(name='heart_rate__max__6h', parameter='heart_rate', aggregation='max',
            window_hours=6, fill=None, required=False)
    >>> Feature.parse("heart_rate__median")
    Traceback (most recent call last):
    ...
    ValueError: feature 'heart_rate__median': not age, PARAMETER__AGGREGATION or \
PARAMETER__AGGREGATION__<N>h with one of last, first, min, max, mean, std, count, trend, \
delta, age
    """

    name: str
    parameter: str | None = None
    aggregation: str | None = None
    window_hours: int | None = None
    fill: float | None = None  # used where the value is missing
    required: bool = False  # no prediction while it is missing

    @classmethod
    def parse(cls, name: str) -> Feature:
        """The feature that `name` stands for; raises ValueError.

        Names are read from the right, so a parameter may contain `__` itself.
        """
        if name in ORIGINAL:
            return ORIGINAL[name]
        parameter, _, aggregation = name.rpartition("__")
        window = None
        if _WINDOW.fullmatch(aggregation):
            window = int(aggregation[:-1])
            parameter, _, aggregation = parameter.rpartition("__")
        if not parameter or aggregation not in AGGREGATIONS:
            raise ValueError(
                f"feature {name!r}: not age, PARAMETER__AGGREGATION or "
                f"PARAMETER__AGGREGATION__<N>h with one of {', '.join(AGGREGATIONS)}"
            )
        return cls(name, parameter, aggregation, window)

    @classmethod
    def from_declaration(cls, declaration: Mapping[str, Any]) -> Feature:
        """The feature that a model declares as a JSON object; raises ValueError.

        >>> Feature.from_declaration({"name": "spo2__count__24h", "window_hours": 12})
        Traceback (most recent call last):
        ...
        ValueError: feature 'spo2__count__24h': window_hours is 12, the name says 24
        """
        name = declaration.get("name")
        if not isinstance(name, str):
            raise ValueError(f"feature {name!r}: name is not a text")
        feature = cls.parse(name)
        for key in ("parameter", "aggregation", "window_hours"):
            said = getattr(feature, key)
            if declaration.get(key, said) != said:
                raise ValueError(
                    f"feature {name!r}: {key} is {declaration[key]!r}, the name says {said!r}"
                )
        fill = declaration.get("fill", feature.fill)
        number = isinstance(fill, int | float) and not isinstance(fill, bool)
        if fill is not None and not (number and math.isfinite(fill)):
            raise ValueError(f"feature {name!r}: fill is {fill!r}, not a finite number or null")
        required = declaration.get("required", feature.required)
        if not isinstance(required, bool):
            raise ValueError(f"feature {name!r}: required is {required!r}, not true or false")
        return replace(feature, fill=None if fill is None else float(fill), required=required)

    def declaration(self) -> dict[str, Any]:
        """The JSON object that `from_declaration` reads back."""
        return {key: getattr(self, key) for key in self.__slots__}


AGGREGATIONS = ("last", "first", "min", "max", "mean", "std", "count", "trend", "delta", "age")
_WINDOW = re.compile(r"[1-9][0-9]{0,4}h")

# What the original's model was given, under the names it used.
ORIGINAL = {
    feature.name: feature
    for feature in (
        Feature("age", required=True),
        Feature("last_blood_pressure", "blood_pressure", "last", required=True),
        Feature("rmean_respiration_rate", "respiration_rate", "mean", required=True),
        Feature("standard_deviation_temperature", "temperature", "std", fill=0.0),
    )
}


@dataclass(slots=True)
class Vital:
    """Running statistics of one stay and parameter: the columns of table `vitals`.

    Enough for every feature without a window, whatever the number of readings, and
    all there is: a Vital read back from the table goes on where it stopped, to the bit.

    >>> temperature = Vital()
    >>> for at, value in [(7.0, 36.5), (8.0, 37.0), (9.0, 37.5)]:
    ...     temperature.add(at, value)
    >>> temperature.n, temperature.mean, temperature.last_value
    (3, 37.0, 37.5)
    """

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0  # sum of squared deviations from the mean
    minimum: float = inf
    maximum: float = -inf
    first_value: float = nan
    first_at: float = inf
    last_value: float = nan
    last_at: float = -inf
    hours_mean: float = 0.0
    hours_m2: float = 0.0
    covariance: float = 0.0  # sum of products of both deviations
    mean_low: float = 0.0  # what `mean` is short of the mean, below its last digit

    def add(self, at: float, value: float) -> None:
        """Take in a reading, late or not (Welford 1962, the mean compensated as by Kahan 1965).

        Without the compensation the error of the mean adds up, and over thousands of
        values like 1e6 + noise nine digits of the deviation are not to be had.
        """
        self.n = n = self.n + 1
        mean = self.mean
        low = self.mean_low
        delta = value - mean - low
        step = delta / n
        rest = delta - step
        low += step
        self.mean = total = mean + low
        self.mean_low = low - (total - mean)
        self.m2 += delta * rest
        hours = at - self.hours_mean
        self.hours_mean = mean = self.hours_mean + hours / n
        self.hours_m2 += hours * (at - mean)
        self.covariance += hours * rest
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value
        # Of equal times the later message is the newer.
        if at >= self.last_at:
            self.last_at = at
            self.last_value = value
        if at < self.first_at:
            self.first_at = at
            self.first_value = value


class Recent:
    """The readings of one stay and parameter that a window may still hold, by time.

    >>> recent = Recent(hours=6)
    >>> for at, value in [(1.0, 90.0), (5.0, 95.0), (4.0, 70.0), (8.0, 80.0)]:
    ...     recent.add(at, value, clock=max(at, 5.0))
    >>> recent.times, recent.values
    ([4.0, 5.0, 8.0], [70.0, 95.0, 80.0])
    """

    __slots__ = ("hours", "times", "values")

    def __init__(self, hours: float) -> None:
        self.hours = hours
        self.times: list[float] = []
        self.values: list[float] = []

    def add(self, at: float, value: float, clock: float) -> None:
        """Take in a reading and let go of those that have left the widest window."""
        times = self.times
        if not times or at >= times[-1]:
            times.append(at)
            self.values.append(value)
        else:
            place = bisect_right(times, at)
            times.insert(place, at)
            self.values.insert(place, value)
        edge = clock - self.hours
        if times[0] <= edge:
            gone = bisect_right(times, edge)
            del times[:gone], self.values[:gone]


class Stay:
    """What is known of one stay at this moment.

    `windows` names the parameters whose readings must be kept, and for how many hours:
    of every model that will ask, so `widest` of their feature sets.

    A stay that is not in memory is `Stay(windows, age=…, vitals=…)` with the rows of table
    `vitals`, then `recall` with the readings of each windowed parameter.
    """

    __slots__ = ("age", "clock", "discharged", "recent", "rows", "vitals")

    def __init__(
        self,
        windows: Mapping[str, float] | None = None,
        *,
        age: float | None = None,
        discharged: bool = False,
        vitals: dict[str, Vital] | None = None,
    ) -> None:
        self.age = age
        self.discharged = discharged
        self.vitals = {} if vitals is None else vitals
        self.clock = max((vital.last_at for vital in self.vitals.values()), default=-inf)
        self.recent = {name: Recent(hours) for name, hours in (windows or {}).items()}
        self.rows: dict[FeatureSet, Row] = {}

    def add(self, at: float, parameter: str, value: float) -> None:
        """Take in the next reading of the stream, in constant time without windows."""
        if at > self.clock:
            self.clock = at
        vital = self.vitals.get(parameter)
        if vital is None:
            vital = self.vitals[parameter] = Vital()
        vital.add(at, value)
        if self.recent:
            recent = self.recent.get(parameter)
            if recent is not None:
                recent.add(at, value, self.clock)

    def recall(self, parameter: str, readings: Iterable[tuple[float, float]]) -> None:
        """Take in stored readings (at, value) for the windows alone, in the order they came.

        Those of the last `windows[parameter]` hours before the clock are needed; older ones do
        no harm.
        """
        recent = self.recent[parameter]
        for at, value in readings:
            recent.add(at, value, self.clock)
        self.rows.clear()


class Row:
    """The last row read off a stay, and what of it still holds."""

    __slots__ = ("counts", "until", "values")

    def __init__(self, empty: list[Value], panels: int) -> None:
        self.values = empty.copy()
        self.counts = [0] * panels  # readings of the panel's parameter that are in it
        self.until = [inf] * panels  # clock at which one of them leaves a window


@dataclass(frozen=True, slots=True)
class Panel:
    """All features of one parameter, by index: `windows` by their hours."""

    parameter: str
    running: list[tuple[int, Callable[[Vital], Value]]]
    windows: dict[int, list[tuple[int, Callable[[list[float], list[float]], Value]]]]


class FeatureSet:
    """The features of one model, ready to be read off any stay.

    >>> model = FeatureSet([Feature.parse("age"), Feature.parse("heart_rate__max__6h")])
    >>> stay = Stay(model.windows, age=63.0)
    >>> stay.add(7.0, "heart_rate", 110.0)
    >>> stay.add(12.0, "heart_rate", 90.0)
    >>> model.row(stay)
    [63.0, 110.0]
    >>> stay.add(13.0, "heart_rate", 80.0)
    >>> model.row(stay)
    [63.0, 90.0]
    >>> model.missing([None, 90.0])
    'no age'
    """

    def __init__(self, features: Iterable[Feature]) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in self.features)
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"feature {min(twice)!r} is declared twice")
        # Parameter -> widest window in hours: what a stay must keep for this model.
        self.windows: dict[str, int] = {}
        self._empty: list[Value] = []  # the row of a stay without readings
        self._age: list[int] = []
        self._ages: list[tuple[int, str, float]] = []  # these change with the clock alone
        panels: dict[str, Panel] = {}
        for index, feature in enumerate(self.features):
            parameter, aggregation, hours = (
                feature.parameter,
                feature.aggregation,
                feature.window_hours,
            )
            self._empty.append(0 if aggregation == "count" else feature.fill)
            if parameter is None or aggregation is None:
                self._age.append(index)
                continue
            if aggregation == "age":
                self._ages.append((index, parameter, hours or inf))
                continue
            panel = panels.setdefault(parameter, Panel(parameter, [], {}))
            if hours is None:
                panel.running.append((index, RUNNING[aggregation]))
            else:
                panel.windows.setdefault(hours, []).append((index, WINDOWED[aggregation]))
                self.windows[parameter] = max(hours, self.windows.get(parameter, 0))
        self._panels = list(panels.values())
        self._parameters = list(panels)
        # A struct is encoded at twice the speed of a dict.
        members = {f"feature_{index}": name for index, name in enumerate(self.names)}
        self._object = msgspec.defstruct(
            "Features", [(member, Any) for member in members], rename=members, gc=False
        )
        self._required = [
            (index, _reason(feature))
            for index, feature in enumerate(self.features)
            if feature.required and feature.fill is None
        ]

    def row(self, stay: Stay) -> list[Value]:
        """The stay's features as of now, in declared order.

        Only what the readings since the last call have changed is computed again.
        """
        row = stay.rows.get(self)
        if row is None:
            row = stay.rows[self] = Row(self._empty, len(self._panels))
        values, counts, until = row.values, row.counts, row.until
        clock, vitals = stay.clock, stay.vitals
        for place, parameter in enumerate(self._parameters):
            vital = vitals.get(parameter)
            if vital is not None and (vital.n != counts[place] or clock >= until[place]):
                counts[place] = vital.n
                until[place] = self._refresh(self._panels[place], values, vital, stay)
        for index in self._age:
            values[index] = self._empty[index] if stay.age is None else stay.age
        for index, parameter, hours in self._ages:
            vital = vitals.get(parameter)
            if vital is not None:
                age = clock - vital.last_at
                values[index] = age if age < hours - HALF_SECOND else self._empty[index]
        return values.copy()

    def _refresh(self, panel: Panel, row: list[Value], vital: Vital, stay: Stay) -> float:
        """Compute a parameter's features; returns the clock up to which they hold as they are."""
        until = inf
        for index, read in panel.running:
            value = read(vital)
            row[index] = self._empty[index] if value is None else value
        for hours, aggregates in panel.windows.items():
            recent = stay.recent[panel.parameter]
            times, values = recent.times, recent.values
            start = bisect_right(times, stay.clock - hours + HALF_SECOND)
            if start:
                times, values = times[start:], values[start:]
            if times:
                until = min(until, times[0] + hours - HALF_SECOND)
            for index, aggregate in aggregates:
                value = aggregate(times, values) if times else None
                row[index] = self._empty[index] if value is None else value
        return until

    def encode(self, row: Sequence[Value]) -> str:
        """The row as a JSON object."""
        return msgspec.json.encode(self._object(*row)).decode()

    def missing(self, row: Sequence[Value]) -> str | None:
        """Why there can be no prediction from `row`: its first required feature that is missing."""
        for index, reason in self._required:
            if row[index] is None:
                return reason
        return None


def widest(sets: Iterable[FeatureSet]) -> dict[str, int]:
    """The windows that serve several models at once.

    >>> names = ["spo2__min__6h", "spo2__min__24h", "temperature__max__12h"]
    >>> widest(FeatureSet([Feature.parse(name)]) for name in names)
    {'spo2': 24, 'temperature': 12}
    """
    windows: dict[str, int] = {}
    for features in sets:
        for parameter, hours in features.windows.items():
            windows[parameter] = max(hours, windows.get(parameter, 0))
    return windows


def _reason(feature: Feature) -> str:
    if feature.parameter is None:
        return "no age"
    span = f"in the last {feature.window_hours} h" if feature.window_hours else "yet"
    if feature.aggregation == "std":
        return f"fewer than two values of {feature.parameter} {span}"
    if feature.aggregation == "trend":
        return f"{feature.parameter} at fewer than two times {span}"
    return f"no {feature.parameter} {span}"


def _std(vital: Vital) -> Value:
    return sqrt(vital.m2 / (vital.n - 1)) if vital.n > 1 else None


def _trend(vital: Vital) -> Value:
    return vital.covariance / vital.hours_m2 if vital.first_at < vital.last_at else None


def _delta(vital: Vital) -> Value:
    return vital.last_value - vital.first_value


RUNNING: dict[str, Callable[[Vital], Value]] = {
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
    """Each number less the mean; exactly 0 where all are the same."""
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


# Of a window's times and values, both in order of time and never empty.
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
