"""A table of readings as arrays, grouped by stay, in order of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from training.arrays import Flags, Floats, Integers


@dataclass(frozen=True)
class ByStay:
    """Arrays with one entry per reading, and the stays, numbered from 0."""

    stay: Integers  # number of each reading's stay
    at: Integers  # seconds since midnight of the day of admission
    clock: Integers  # the stay's clock: the greatest `at` up to this reading
    start: Integers  # index of the stay's first reading
    value: Floats
    parameters: dict[str, Integers]  # parameter -> indices of its readings
    stays: pd.MultiIndex  # (pat_id, date_admission) of each stay
    asked: Integers  # indices of the readings that get features
    target: Integers  # the rows of these readings in the result

    @classmethod
    def of(cls, readings: pd.DataFrame, rows: Flags | None) -> ByStay:
        """Groups the readings by stay. rows: flags the readings that get features; None for all.
        Raises ValueError for a value that is not finite."""
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
            clock=running_max(at, stay),
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

    @property
    def hours(self) -> Floats:
        """The hours from the stay's earliest reading so far to its clock, one value per reading
        that gets features."""
        earliest = -running_max(-self.at, self.stay)
        return np.asarray((self.clock - earliest)[self.asked] / 3600, np.float64)

    def ages(self, ages: pd.Series[float]) -> Floats:
        patient, day = (ages.index.get_level_values(level) for level in (0, 1))
        known = ages.set_axis(pd.MultiIndex.from_arrays([patient, pd.to_datetime(day)]))
        by_stay = known.reindex(self.stays).to_numpy(np.float64)
        return np.asarray(by_stay[self.stay[self.asked]], np.float64)


def running_max(numbers: Integers, group: Integers) -> Integers:
    """The running maximum within each group; the groups are numbered in order from 0."""
    room = int(numbers.max(initial=0)) - int(numbers.min(initial=0)) + 1
    return np.maximum.accumulate(numbers + group * room) - group * room


def _seconds(times: pd.Series[Any]) -> Integers:
    return np.asarray(times.to_numpy("datetime64[s]"), "datetime64[s]").astype(np.int64)
