"""The readings of one parameter, and their aggregations as of each requested reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from training.arrays import Floats, Integers
from training.by_stay import ByStay, running_max
from training.windows import HOUR, aggregate, divide, windows


class Channel:
    """The readings of one parameter, and which of them each requested row includes."""

    def __init__(self, readings: ByStay, parameter: str) -> None:
        self.readings = readings
        self.places = readings.parameters.get(parameter, np.empty(0, dtype=np.int64))
        self.stay = readings.stay[self.places]
        self.at = readings.at[self.places]
        self.value = readings.value[self.places]
        before = np.zeros(len(readings.stay) + 1, dtype=np.int64)
        before[self.places + 1] = 1
        before = np.cumsum(before)
        # A requested row includes the parameter's readings from `begin` up to `end`.
        self.begin = before[readings.start[readings.asked]]
        self.end = before[readings.asked + 1]
        self.clock = readings.clock[readings.asked]

    def running(self, aggregations: set[str]) -> dict[str, Floats]:
        """The aggregations over all readings up to the requested row, one value per requested
        row."""
        found = self._so_far(aggregations)
        seen = self.end > self.begin
        newest_seen = (self.end - 1)[seen]
        columns = {}
        for aggregation, values in found.items():
            columns[aggregation] = np.full(len(seen), np.nan)
            columns[aggregation][seen] = values[newest_seen]
        if "count" in aggregations:
            columns["count"] = (self.end - self.begin).astype(np.float64)
        if "age" in columns:  # so far the time of the last reading, in seconds
            columns["age"] = (self.clock - columns["age"]) / HOUR
        return columns

    def _so_far(self, aggregations: set[str]) -> dict[str, Any]:
        """The aggregations as of each reading of the parameter. In this result, `age` is the time
        of `last`."""
        place = np.arange(len(self.places))
        new = np.append(True, self.stay[1:] != self.stay[:-1])[: len(place)]
        start = np.maximum.accumulate(np.where(new, place, 0))
        n = place - start + 1
        newest = self.at >= running_max(self.at, self.stay)
        last = np.maximum.accumulate(np.where(newest, place, 0))
        oldest = -running_max(-self.at, self.stay)
        older = new | (oldest < np.append(0, oldest[:-1])[: len(place)])
        first = np.maximum.accumulate(np.where(older, place, 0))

        # The deviations from the stay's first value are summed. Because it is one of the summed
        # values, cancellation multiplies the rounding error by at most n. groupby's cumsum is
        # compensated (Kahan).
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
            found["std"] = np.sqrt(divide(squares, n - 1, n > 1))
        if "trend" in aggregations:
            products = total(hours * value) - total(hours) * total(value) / n
            squares = total(hours * hours) - total(hours) ** 2 / n
            found["trend"] = divide(products, squares, self.at[last] > oldest)
        if "age" in aggregations:
            found["age"] = self.at[last].astype(np.float64)
        return found

    def windowed(self, hours: int, aggregations: set[str]) -> dict[str, Floats]:
        """The aggregations over (clock - hours, clock], one value per requested row.

        A window changes only when a reading enters or leaves it, so each distinct window is
        computed once, directly from its readings, without cancellation errors.
        """
        stay = self.readings.stay[self.readings.asked]
        # `key` is one number per (stay, time). The keys of two stays differ by more than a window.
        early = int(min(self.at.min(initial=0), self.clock.min(initial=0)))
        late = int(max(self.at.max(initial=0), self.clock.max(initial=0)))
        room = late - early + hours * HOUR + 1
        key = self.stay * room + (self.at - early)
        by_time = np.argsort(key, kind="stable")
        key = key[by_time]
        edge = stay * room + (self.clock - early)
        begin = np.maximum(np.searchsorted(key, edge - hours * HOUR, side="right"), self.begin)
        late_rows = bool((by_time[1:] < by_time[:-1]).any())
        # With late rows, some readings up to the clock may not have arrived yet; `windows` excludes
        # them.
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
        for chosen, members, n in windows(bounds, by_time if late_rows else None):
            for name, values in aggregate(at[members], value[members], n, aggregations).items():
                columns[name][chosen] = values
        found = {name: columns[name][which] for name in aggregations}
        if "age" in aggregations:  # so far the time of the last reading, in seconds
            found["age"] = (self.clock - found["age"]) / HOUR
        return found


def _grouped(numbers: Floats, group: Integers) -> Any:
    return pd.Series(numbers).groupby(group, sort=False)
