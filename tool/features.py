"""Features of a stay as of now, updated one reading at a time.

`wire.features` defines the names. An aggregation covers all readings of a parameter so far, or
those in a window such as (T - 6 h, T]. T is the stay's clock: the latest time of all its readings
so far, which a late reading does not change. `hour` is the time from the earliest of all readings
so far to T, in hours.

    last, first   value with the greatest or the least (time, message number)
    min, max, mean
    std           sample standard deviation (n - 1); missing with fewer than two values
    count         0 without readings
    trend         least-squares slope per hour; missing with fewer than two different times
    delta         last - first
    age           hours from the time of `last` to T

A missing value is None. Times are hours since midnight of the day of admission. No function here
reads a clock, a file or a network.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from tool.aggregates import RUNNING, SPREAD, WINDOWED, Value, windowed
from tool.statistics import Recent, Statistics
from wire.features import Feature

# Times are whole seconds, and hours as floats cannot represent all of them exactly. A window's edge
# is therefore shifted by half a second, so that no time is exactly on it.
HALF_SECOND = 0.5 / 3600


class Stay:
    """The state of one stay.

    windows: the hours of readings to keep for each parameter (`FeatureSet.windows`). To restore a
    stay, create `Stay(windows, age=…, statistics=…)` from the rows of table `vitals`, then `recall`
    the readings of each windowed parameter.
    """

    __slots__ = ("age", "clock", "recent", "rows", "start", "statistics")

    def __init__(
        self,
        windows: Mapping[str, float] | None = None,
        *,
        age: float | None = None,
        statistics: dict[str, Statistics] | None = None,
    ) -> None:
        self.age = age
        self.statistics = {} if statistics is None else statistics
        self.clock, self.start = -inf, inf
        self.recent = {name: Recent(hours) for name, hours in (windows or {}).items()}
        self.rows: dict[FeatureSet, CachedRow] = {}
        self.reset_clock()

    def add(self, at: float, parameter: str, value: float) -> None:
        """Adds the next reading of the stream. Takes constant time if there are no windows."""
        if at > self.clock:
            self.clock = at
        if at < self.start:
            self.start = at
        statistics = self.statistics.get(parameter)
        if statistics is None:
            statistics = self.statistics[parameter] = Statistics()
        statistics.add(at, value)
        if self.recent:
            recent = self.recent.get(parameter)
            if recent is not None:
                recent.add(at, value, self.clock)

    def recall(self, parameter: str, readings: Iterable[tuple[float, float]]) -> None:
        """Replaces a window's readings with stored ones (at, value), in the order of the stream.

        `readings` must include those of the last `windows[parameter]` hours before the clock; older
        ones are dropped.
        """
        recent = self.recent[parameter] = Recent(self.recent[parameter].hours)
        for at, value in readings:
            recent.add(at, value, self.clock)
        self.rows.clear()

    def reset_clock(self) -> None:
        """Resets the clock and the start to the times in the statistics, and clears all cached
        rows."""
        self.clock = max((each.last_at for each in self.statistics.values()), default=-inf)
        self.start = min((each.first_at for each in self.statistics.values()), default=inf)
        self.rows.clear()


class CachedRow:
    """The last row of features of a stay, and how long each part of it stays valid."""

    __slots__ = ("counts", "edges", "until", "values")

    def __init__(self, empty: list[Value], panels: "list[Panel]") -> None:
        self.values = empty.copy()
        self.counts = [0] * len(panels)  # readings that the row includes, per panel
        # edges: for each window of a panel, the clock at which its next reading leaves it. until:
        # for each panel, the least of these.
        self.edges = [[inf] * len(panel.windows) for panel in panels]
        self.until = [inf] * len(panels)


@dataclass(slots=True)
class Panel:
    """The features of one parameter, with their indices; `windows` are grouped by hours, and have
    the place of each feature in the result of `windowed`. spread: whether one of these is std or
    trend."""

    parameter: str
    running: list[tuple[int, Callable[[Statistics], Value]]]
    windows: dict[int, list[tuple[int, int]]]
    spread: bool = False


class FeatureSet:
    """The features of one or more models; `row` computes them for a stay. missing: the value in a
    row that stands for a missing value. Raises ValueError if a feature is declared twice.

    >>> model = FeatureSet([Feature.parse("age", required=True), Feature.parse("spo2__max__6h")])
    >>> stay = Stay(model.windows, age=63.0)
    >>> stay.add(7.0, "spo2", 97.0)
    >>> stay.add(12.0, "spo2", 95.0)
    >>> model.row(stay)
    [63.0, 97.0]
    >>> stay.add(13.0, "spo2", 94.0)
    >>> model.row(stay)
    [63.0, 95.0]
    >>> model.missing([None, 90.0])
    'no age'
    """

    def __init__(self, features: Iterable[Feature], missing: Value = None) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.name for feature in self.features)
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"feature {min(twice)!r} is declared twice")
        # Parameter → widest window in hours, which a stay must keep.
        self.windows: dict[str, int] = {}
        self._empty: list[Value] = []  # the row of a stay without readings
        self._age: list[int] = []
        self._hour: list[int] = []
        self._ages: list[tuple[int, str, float]] = []  # index, parameter, hours of the window
        panels: dict[str, Panel] = {}
        for index, feature in enumerate(self.features):
            fill = missing if feature.fill is None else feature.fill
            self._empty.append(0 if feature.aggregation == "count" else fill)
            self._place(index, feature, panels)
        self._panels = list(panels.values())
        self._required = [
            (index, _reason(feature))
            for index, feature in enumerate(self.features)
            if feature.required and feature.fill is None
        ]

    def _place(self, index: int, feature: Feature, panels: dict[str, Panel]) -> None:
        parameter, aggregation, hours = feature.parameter, feature.aggregation, feature.window_hours
        if parameter is None or aggregation is None:
            (self._hour if feature.name == "hour" else self._age).append(index)
            return
        if aggregation == "age":
            self._ages.append((index, parameter, hours or inf))
            return
        panel = panels.setdefault(parameter, Panel(parameter, [], {}))
        if hours is None:
            panel.running.append((index, RUNNING[aggregation]))
        else:
            place = WINDOWED.index(aggregation)
            panel.windows.setdefault(hours, []).append((index, place))
            panel.spread |= place in SPREAD
            self.windows[parameter] = max(hours, self.windows.get(parameter, 0))

    def row(self, stay: Stay) -> list[Value]:
        """The stay's features as of now, in declared order.

        Computes only features that have changed since the last call.
        """
        row = stay.rows.get(self)
        if row is None:
            row = stay.rows[self] = CachedRow(self._empty, self._panels)
        values, counts, until = row.values, row.counts, row.until
        clock, statistics = stay.clock, stay.statistics
        for place, panel in enumerate(self._panels):
            known = statistics.get(panel.parameter)
            if known is None:
                continue
            if known.n != counts[place]:
                counts[place] = known.n
                for index, read in panel.running:
                    value = read(known)
                    values[index] = self._empty[index] if value is None else value
                if panel.windows:
                    row.edges[place] = [-inf] * len(panel.windows)
                    until[place] = self._refresh(panel, values, row.edges[place], stay)
            elif clock >= until[place]:
                until[place] = self._refresh(panel, values, row.edges[place], stay)
        for index in self._age:
            values[index] = self._empty[index] if stay.age is None else stay.age
        for index in self._hour:
            values[index] = clock - stay.start if statistics else self._empty[index]
        for index, parameter, hours in self._ages:
            known = statistics.get(parameter)
            if known is not None:
                age = clock - known.last_at
                values[index] = age if age < hours - HALF_SECOND else self._empty[index]
        return values.copy()

    def _refresh(self, panel: Panel, row: list[Value], edges: list[float], stay: Stay) -> float:
        """Computes the windows whose readings may have changed; returns the clock at which a
        reading next leaves a window."""
        recent, clock, empty = stay.recent[panel.parameter], stay.clock, self._empty
        times, values = recent.times, recent.values
        known = -1
        found: tuple[Value, ...] = ()  # windows that are longer than the stay are equal
        for number, (hours, places) in enumerate(panel.windows.items()):
            if clock < edges[number]:
                continue
            start = bisect_right(times, clock - hours + HALF_SECOND)
            if start == len(times):
                edges[number] = inf
                for index, _ in places:
                    row[index] = empty[index]
                continue
            edges[number] = times[start] + hours - HALF_SECOND
            if start != known:
                known, found = start, windowed(times[start:], values[start:], panel.spread)
            for index, place in places:
                value = found[place]
                row[index] = empty[index] if value is None else value
        return min(edges)

    def missing(self, row: Sequence[Value]) -> str | None:
        """The reason why there is no prediction for `row`: its first missing required feature. None
        if no required feature is missing. A missing value is None or NaN."""
        for index, reason in self._required:
            value = row[index]
            if value is None or value != value:
                return reason
        return None


def _reason(feature: Feature) -> str:
    if feature.parameter is None:
        return f"no {feature.name}"
    span = f"in the last {feature.window_hours} h" if feature.window_hours else "yet"
    if feature.aggregation == "std":
        return f"fewer than two values of {feature.parameter} {span}"
    if feature.aggregation == "trend":
        return f"{feature.parameter} at fewer than two times {span}"
    return f"no {feature.parameter} {span}"
