"""Features of many stays at once, from tables of readings.

The same contract as `tool.features` (what each name means stands there), computed in
another way: over whole columns instead of reading by reading, and with none of its
arithmetic. tests/unit/test_feature_agreement.py holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wire.features import Feature

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

HOUR = 3600  # seconds; times are compared as whole seconds, so edges are exact
ELEMENTS = 1 << 21  # readings of windows laid side by side at a time: bounds the memory


def bulk_features(
    readings: pd.DataFrame,
    ages: pd.Series[float],
    features: Iterable[Feature],
    rows: Flags | None = None,
) -> pd.DataFrame:
    """Each reading's features as of that reading: float64, NaN where missing, fill applied.

    readings: `seq, pat_id, date_admission, measured_at, parameter, value` of one stream, in any
        order; times in whole seconds, values finite (ValueError).
    ages: years by (pat_id, date_admission).
    rows: which readings to give features for (see `last_rows`), all of them if None. The others
        still count as what was known before.

    Returns one row a chosen reading, with its index label, one column a feature.
    """
    features = list(features)
    stream = Stream.of(readings, rows)
    matrix: Floats = np.empty((len(stream.asked), len(features)), np.float64, order="F")
    channels: dict[str, dict[int, list[tuple[int, str]]]] = {}
    for index, feature in enumerate(features):
        if feature.parameter is None or feature.aggregation is None:
            matrix[stream.target, index] = stream.ages(ages)
        else:
            spans = channels.setdefault(feature.parameter, {})
            spans.setdefault(feature.window_hours or 0, []).append((index, feature.aggregation))
    for parameter, spans in channels.items():
        channel = Channel(stream, parameter)
        for hours, columns in spans.items():
            wanted = {aggregation for _, aggregation in columns}
            found = channel.windowed(hours, wanted) if hours else channel.running(wanted)
            for index, aggregation in columns:
                matrix[stream.target, index] = found[aggregation]
    for index, feature in enumerate(features):
        if feature.fill is not None:
            column = matrix[:, index]
            column[np.isnan(column)] = feature.fill
    labels = readings.index if rows is None else readings.index[rows]
    return pd.DataFrame(matrix, index=labels, columns=[feature.name for feature in features])


def last_rows(readings: pd.DataFrame, hours: float | None = None) -> Flags:
    """Which reading is the last of its stay, or the last known `hours` after its first midnight.

    A late reading that came when the stay's clock was past `hours` was not known then.
    A stay with no reading by then has no row.
    """
    stream = Stream.of(readings, None)
    known = np.arange(len(readings))
    if hours is not None:
        known = known[stream.clock <= hours * HOUR]
    stay = stream.stay[known]
    last = known[np.append(stay[1:] != stay[:-1], True)] if len(known) else known
    flags = np.zeros(len(readings), dtype=bool)
    flags[stream.target[last]] = True
    return flags


@dataclass(frozen=True)
class Stream:
    """All readings, those of a stay together and in the order they came."""

    stay: Integers  # of each reading, numbered from 0
    at: Integers  # seconds since the midnight of the day of admission
    clock: Integers  # greatest `at` of the stay up to here
    start: Integers  # place of the stay's first reading
    value: Floats
    parameters: dict[str, Integers]  # parameter -> places of its readings
    stays: pd.MultiIndex  # (pat_id, date_admission) by number
    asked: Integers  # places of the readings to give features for
    target: Integers  # their place in what is returned

    @classmethod
    def of(cls, readings: pd.DataFrame, rows: Flags | None) -> Stream:
        values = readings["value"].to_numpy(np.float64)
        if not np.isfinite(values).all():
            label = readings.index[~np.isfinite(values)][0]
            raise ValueError(f"reading {label}: value is not a finite number")
        admitted = pd.to_datetime(readings["date_admission"])
        measured = pd.to_datetime(readings["measured_at"])
        patient, patients = pd.factorize(readings["pat_id"])
        day, days = pd.factorize(admitted)
        width = max(len(days), 1)
        stay, keys = pd.factorize(patient.astype(np.int64) * width + day)
        order = np.lexsort((readings["seq"].to_numpy(), stay))
        stay = stay[order].astype(np.int64)
        at = (_seconds(measured) - _seconds(admitted))[order]
        new = np.append(True, stay[1:] != stay[:-1])[: len(stay)]
        start = np.maximum.accumulate(np.where(new, np.arange(len(stay)), 0))
        code, names = pd.factorize(readings["parameter"])
        code = code[order]
        by_code = np.argsort(code, kind="stable")
        edges = np.searchsorted(code[by_code], np.arange(len(names) + 1))
        if rows is None:
            asked, target = np.arange(len(order)), order
        else:
            asked = np.flatnonzero(rows[order])
            target = (np.cumsum(rows) - 1)[order[asked]]
        return cls(
            stay=stay,
            at=at,
            clock=_running_max(at, stay),
            start=start,
            value=values[order],
            parameters={
                name: by_code[begin:end]
                for name, begin, end in zip(names, edges[:-1], edges[1:], strict=True)
            },
            stays=pd.MultiIndex.from_arrays([patients[keys // width], days[keys % width]]),
            asked=asked,
            target=target,
        )

    def ages(self, ages: pd.Series[float]) -> Floats:
        patient, day = (ages.index.get_level_values(level) for level in (0, 1))
        known = ages.set_axis(pd.MultiIndex.from_arrays([patient, pd.to_datetime(day)]))
        by_stay = known.reindex(self.stays).to_numpy(np.float64)
        return np.asarray(by_stay[self.stay[self.asked]], np.float64)


class Channel:
    """The readings of one parameter, and how many of them each asked row has seen."""

    def __init__(self, stream: Stream, parameter: str) -> None:
        self.stream = stream
        self.places = stream.parameters.get(parameter, np.empty(0, dtype=np.int64))
        self.stay = stream.stay[self.places]
        self.at = stream.at[self.places]
        self.value = stream.value[self.places]
        before = np.zeros(len(stream.stay) + 1, dtype=np.int64)
        before[self.places + 1] = 1
        before = np.cumsum(before)
        # Of the parameter's readings, an asked row has seen those from `begin` up to `end`.
        self.begin = before[stream.start[stream.asked]]
        self.end = before[stream.asked + 1]
        self.clock = stream.clock[stream.asked]

    def running(self, aggregations: set[str]) -> dict[str, Floats]:
        """The aggregations over all readings so far, one value an asked row."""
        place = np.arange(len(self.places))
        new = np.append(True, self.stay[1:] != self.stay[:-1])[: len(place)]
        start = np.maximum.accumulate(np.where(new, place, 0))
        n = place - start + 1
        newest = self.at >= _running_max(self.at, self.stay)
        last = np.maximum.accumulate(np.where(newest, place, 0))
        oldest = -_running_max(-self.at, self.stay)
        older = new | (oldest < np.append(0, oldest[:-1])[: len(place)])
        first = np.maximum.accumulate(np.where(older, place, 0))

        # Sums of deviations from the stay's first value: it is one of them, so at most a
        # factor n is lost to cancellation. groupby's cumsum is compensated (Kahan).
        value = self.value - self.value[start]
        hours = (self.at - self.at[start]) / HOUR

        def total(numbers: Floats) -> Floats:
            return np.asarray(_grouped(numbers, self.stay).cumsum(), np.float64)

        found: dict[str, Any] = {}
        if "last" in aggregations:
            found["last"] = self.value[last]
        if "first" in aggregations:
            found["first"] = self.value[first]
        if "delta" in aggregations:
            found["delta"] = self.value[last] - self.value[first]
        if "min" in aggregations:
            found["min"] = _grouped(self.value, self.stay).cummin().to_numpy()
        if "max" in aggregations:
            found["max"] = _grouped(self.value, self.stay).cummax().to_numpy()
        if "mean" in aggregations:
            found["mean"] = self.value[start] + total(value) / n
        if "std" in aggregations:
            squares = np.maximum(total(value * value) - total(value) ** 2 / n, 0)
            found["std"] = np.sqrt(_divide(squares, n - 1, n > 1))
        if "trend" in aggregations:
            products = total(hours * value) - total(hours) * total(value) / n
            squares = total(hours * hours) - total(hours) ** 2 / n
            found["trend"] = _divide(products, squares, self.at[last] > oldest)

        seen = self.end > self.begin
        newest_seen = (self.end - 1)[seen]
        columns = {}
        for aggregation, values in found.items():
            columns[aggregation] = np.full(len(seen), np.nan)
            columns[aggregation][seen] = values[newest_seen]
        if "count" in aggregations:
            columns["count"] = (self.end - self.begin).astype(np.float64)
        if "age" in aggregations:
            columns["age"] = np.full(len(seen), np.nan)
            columns["age"][seen] = (self.clock[seen] - self.at[last[newest_seen]]) / HOUR
        return columns

    def windowed(self, hours: int, aggregations: set[str]) -> dict[str, Floats]:
        """The aggregations over (clock - hours, clock], one value an asked row.

        A window changes only when a reading enters or leaves it, so each different one is
        computed once, over its readings themselves: there is nothing to cancel.
        """
        stay = self.stream.stay[self.stream.asked]
        # One ascending number for (stay, time), with room for a window between two stays.
        early = int(min(self.at.min(initial=0), self.clock.min(initial=0)))
        late = int(max(self.at.max(initial=0), self.clock.max(initial=0)))
        room = late - early + hours * HOUR + 1
        key = self.stay * room + (self.at - early)
        by_time = np.argsort(key, kind="stable")
        key = key[by_time]
        edge = stay * room + (self.clock - early)
        begin = np.maximum(np.searchsorted(key, edge - hours * HOUR, side="right"), self.begin)
        late_rows = bool((by_time[1:] < by_time[:-1]).any())
        # With late rows, some up to the clock may not have come yet: `_windows` leaves them out.
        end = np.searchsorted(key, edge, side="right") if late_rows else self.end
        end = np.maximum(end, begin)

        bounds = np.stack([begin, end, self.end if late_rows else end])
        different = np.append(True, (bounds[:, 1:] != bounds[:, :-1]).any(axis=0))[: len(begin)]
        which = np.cumsum(different) - 1
        bounds = bounds[:, different]

        columns = {name: np.full(bounds.shape[1], np.nan) for name in aggregations | {"age"}}
        if "count" in columns:
            columns["count"][:] = 0
        at, value = self.at[by_time], self.value[by_time]
        for chosen, members, n in _windows(bounds, by_time if late_rows else None):
            for name, values in _aggregate(at[members], value[members], n, aggregations).items():
                columns[name][chosen] = values
        found = {name: columns[name][which] for name in aggregations}
        if "age" in aggregations:  # so far the time of the last reading, in seconds
            found["age"] = (self.clock - found["age"]) / HOUR
        return found


def _windows(
    bounds: Integers, arrival: Integers | None
) -> Iterator[tuple[Integers, Integers, Integers]]:
    """Windows that are not empty, some at a time: their numbers, members and sizes.

    bounds: begin and end of each window in order of time, and how many readings had come.
    arrival: each reading's place in the order they came, if that is another one.
    """
    begin, end, come = bounds
    chosen = np.flatnonzero(end > begin)
    sizes = np.cumsum((end - begin)[chosen])
    cuts = np.searchsorted(sizes, np.arange(ELEMENTS, sizes.max(initial=0), ELEMENTS))
    for part in np.split(chosen, np.unique(cuts)):
        if not len(part):
            continue
        n = (end - begin)[part]
        members = np.arange(n.sum()) + np.repeat(begin[part] - (np.cumsum(n) - n), n)
        if arrival is not None:
            known = arrival[members] < np.repeat(come[part], n)
            n = np.add.reduceat(known, np.cumsum(n) - n, dtype=np.int64)
            part, members, n = part[n > 0], members[known], n[n > 0]
        if len(part):
            yield part, members, n


def _aggregate(
    at: Integers, value: Floats, n: Integers, aggregations: set[str]
) -> dict[str, Floats | Integers]:
    """The aggregations of windows laid side by side, each of n readings in order of time."""
    start = np.cumsum(n) - n
    last = start + n - 1
    found: dict[str, Any] = {}
    if "last" in aggregations:
        found["last"] = value[last]
    if "first" in aggregations:
        found["first"] = value[start]
    if "delta" in aggregations:
        found["delta"] = value[last] - value[start]
    if "count" in aggregations:
        found["count"] = n
    if "age" in aggregations:
        found["age"] = at[last]
    if "min" in aggregations:
        found["min"] = np.minimum.reduceat(value, start)
    if "max" in aggregations:
        found["max"] = np.maximum.reduceat(value, start)
    if aggregations & {"mean", "std", "trend"}:
        mean, rest = _centred(value, start, n)
        found["mean"] = mean
        if "std" in aggregations:
            squares = np.add.reduceat(rest * rest, start)
            found["std"] = np.sqrt(_divide(squares, n - 1, n > 1))
        if "trend" in aggregations:
            _, hours = _centred(at / HOUR, start, n)
            found["trend"] = _divide(
                np.add.reduceat(hours * rest, start),
                np.add.reduceat(hours * hours, start),
                at[last] > at[start],
            )
    return {name: values for name, values in found.items() if name in aggregations}


def _centred(numbers: Floats, start: Integers, n: Integers) -> tuple[Floats, Floats]:
    """Each window's mean, and its numbers less that mean."""
    first = numbers[start]
    rest = numbers - np.repeat(first, n)
    mean = np.add.reduceat(rest, start) / n
    rest -= np.repeat(mean, n)
    return first + mean, rest


def _divide(numerator: Floats, denominator: Any, where: Flags) -> Floats:
    quotient = np.full(len(where), np.nan)
    np.divide(numerator, denominator, out=quotient, where=where)
    return quotient


def _running_max(numbers: Integers, group: Integers) -> Integers:
    """The greatest so far within each group; groups are numbered upwards from 0."""
    room = int(numbers.max(initial=0)) - int(numbers.min(initial=0)) + 1
    return np.maximum.accumulate(numbers + group * room) - group * room


def _grouped(numbers: Floats, group: Integers) -> Any:
    return pd.Series(numbers).groupby(group, sort=False)


def _seconds(times: pd.Series[Any]) -> Integers:
    return np.asarray(times.to_numpy("datetime64[s]"), "datetime64[s]").astype(np.int64)
