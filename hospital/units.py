"""Converts readings in °F, kPa, Hz or as fractions to the pipeline's units.

A series, the readings of one vital in one stay, is converted as a whole. Each unit has a range of
possible values. The ranges of the two units of a vital do not overlap, so a value shows its unit.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hospital.csv_file import Array
from wire.vitals import VITALS, canonical

log = logging.getLogger(__name__)

# A series with fewer readings in the other unit is converted only if no value of its vital in the
# file can be in the pipeline's unit.
CLEARLY = 3


class Unit(NamedTuple):
    """A unit that the pipeline does not use: value · factor + offset is in the pipeline's unit.

    usual, other: the possible values (above, below) in the pipeline's unit and in this unit.
    """

    name: str
    usual: tuple[float, float]
    other: tuple[float, float]
    factor: float
    offset: float = 0.0


# The ranges of °C and °F are those of MIT-LCP's mimic-code (concepts/measurement/vitalsign.sql).
# The other ranges are chosen so that there is a gap between the two units.
KILOPASCAL = 7.50062
OTHERS = {
    "temperature": Unit("°F", (10, 50), (70, 120), 1 / 1.8, -32 / 1.8),
    "blood_pressure": Unit("kPa", (45, 400), (4, 35), KILOPASCAL),
    "blood_pressure_mean": Unit("kPa", (35, 400), (3, 25), KILOPASCAL),
    "blood_pressure_diastolic": Unit("kPa", (25, 400), (2, 18), KILOPASCAL),
    "heart_rate": Unit("Hz", (10, 400), (0.3, 5.5), 60),
    "respiration_rate": Unit("Hz", (2, 300), (0.08, 1.2), 60),
    "spo2": Unit("a fraction of 1", (20, 100.5), (0.3, 1.0001), 100),
}

Report = Callable[[int, str], None]  # called with the index of a rejected reading, and the reason


def in_usual_units(
    value: Array, stay: Array, parameter: Array, names: list[str], report: Report
) -> tuple[Array, Array]:
    """Converts the series that are clearly in another unit; returns the values, and a mask of the
    readings to keep.

    A series is converted, to two decimals, if none of its values can be in the pipeline's unit, and
    at least CLEARLY of them can be in the other unit. Fewer suffice if no value of the vital in the
    file can be in the pipeline's unit. Otherwise the series is ambiguous, and those of its readings
    that can be in the other unit are rejected. A series with values in both units is not changed.
    """
    kept = np.ones(len(value), bool)
    converted = value
    for vital, unit in OTHERS.items():
        chosen = [number for number, name in enumerate(names) if canonical(name) == vital]
        if not chosen:
            continue
        rows = np.flatnonzero(np.isin(parameter, chosen))
        values, series = value[rows], stay[rows]
        odd = (values > unit.other[0]) & (values < unit.other[1])
        if not odd.any():
            continue
        usual = (values > unit.usual[0]) & (values < unit.usual[1])
        odd_in = np.bincount(series[odd], minlength=series.max() + 1)
        usual_in = np.bincount(series[usual], minlength=series.max() + 1)
        only = (odd_in > 0) & (usual_in == 0)
        clearly = only & ((odd_in >= CLEARLY) | (not usual.any()))
        turned = odd & clearly[series]
        if turned.any():
            converted = converted.copy() if converted is value else converted
            converted[rows[turned]] = np.round(values[turned] * unit.factor + unit.offset, 2)
        unclear = odd & (only & ~clearly)[series]
        kept[rows[unclear]] = False
        for row in rows[unclear].tolist():
            report(row, f"ambiguous: may be {unit.name}")
        _log(vital, unit, turned.sum(), clearly.sum(), ((odd_in > 0) & ~only).sum())
    return converted, kept


def _log(vital: str, unit: Unit, readings: int, stays: int, mixed: int) -> None:
    if readings:
        log.info(
            "%s: converted from %s to %s (readings: %d, stays: %d)",
            *(vital, unit.name, VITALS[vital].unit, readings, stays),
        )
    if mixed and vital == "temperature":
        log.warning(
            "%s: values that may be in %s are not converted, because their stays also have values "
            "in %s (stays: %d)",
            *(vital, unit.name, VITALS[vital].unit, mixed),
        )
