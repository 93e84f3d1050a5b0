"""The readings of signal.csv as compact arrays: cleaned, each once, of a stay, in °C."""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hospital.cells import Dates, Numbers, Parameters, hour
from hospital.csv_file import Array, CsvFile, clean
from hospital.rejected import Rejected
from hospital.stays import Stays, day_text, warn_of_assumed_order

log = logging.getLogger(__name__)

SIGNAL_COLUMNS = ("pat_id", "day", "hour", "parameter", "value")
KINDS = {
    "line": np.int32,
    "hash": np.int64,
    "stay": np.int32,
    "slot": np.int32,
    "parameter": np.int32,
    "value": np.float64,
}
SLOTS = 25  # of a day: hours 0 to 23, and 24 for the discharge that is told at its end
TEMPERATURES = frozenset(["temperature", "temp", "body_temperature"])
# Body temperatures that can be meant, by unit: the limits of MIT-LCP's mimic-code
# (concepts/measurement/vitalsign.sql). They do not touch, so a number tells its unit.
CELSIUS = (10.0, 50.0)
FAHRENHEIT = (70.0, 120.0)
CLEARLY = 3  # readings that a series in °F has at least, unless the whole file is in °F


@dataclass(frozen=True)
class Readings:
    """One array entry a reading, in the file's order.

    `stay` is an index into Stays, `parameter` one into `names`, and `slot` the time as
    day * SLOTS + hour.
    """

    stay: Array
    slot: Array
    parameter: Array
    value: Array
    names: list[str]


def read_readings(
    file: CsvFile, stays: Stays, date_format: str | None, rejected: Rejected
) -> tuple[Readings, int]:
    """All readings that lie within a stay, and the number of exact duplicates left out.

    A duplicate is a row equal to an earlier one as a whole line, columns that are not read
    included: two equal values of one hour with their own row numbers are two measurements.
    """

    def refuse(line: int, column: str, value: str, reason: str) -> None:
        rejected.add(file.name, line, column, value, reason)

    dates, parameters, finder = Dates(date_format), Parameters(), stays.finder()
    parsers = {
        "pat_id": finder.patient,
        "day": dates.parse_day,
        "hour": hour,
        "parameter": parameters.parse,
        "value": _numbers(file).parse,
    }
    # Room for all lines at once: memory that is not used is not taken, and nothing is copied.
    columns = {name: np.empty(file.contents.lines, kind) for name, kind in KINDS.items()}
    count = 0
    for block in file.blocks(file.columns, refuse):
        rows = clean(file, block, parsers, refuse)
        day = rows["day"] + (rows["hour"] == 24)
        rows["slot"] = day * SLOTS + rows["hour"] % 24
        rows["stay"] = finder.find(rows["pat_id"], day)
        lost = rows["stay"] < 0
        for line, when in zip(rows["line"][lost].tolist(), day[lost].tolist(), strict=True):
            refuse(line, "day", day_text(when), "outside the patient's stays")
        start, count = count, count + int((~lost).sum())
        for name, values in columns.items():
            values[start:count] = rows[name][~lost]
    warn_of_assumed_order(file.name, dates)
    columns = {name: values[:count] for name, values in columns.items()}
    if (np.diff(columns["line"]) < 0).any():
        order = np.argsort(columns["line"])
        columns = {name: values[order] for name, values in columns.items()}
    twice = _duplicated(columns)
    if twice.any():
        columns = {name: values[~twice] for name, values in columns.items()}
    names = list(parameters.numbers)
    value = in_celsius(columns["value"], columns["stay"], columns["parameter"], names)
    readings = Readings(columns["stay"], columns["slot"], columns["parameter"], value, names)
    return readings, int(twice.sum())


def _numbers(file: CsvFile) -> Numbers:
    """The parser of the value column; reads the file once before if it may use decimal commas."""
    numbers = Numbers()
    if file.contents.has_comma and (file.separator != "," or file.contents.has_quote):
        log.info("%s: looking for decimal commas", file.name)
        for block in file.blocks(("value",), lambda *_: None):
            for text in block.cells["value"].categories:
                numbers.learn(text)
        file.rows = 0
    return numbers


def _duplicated(columns: dict[str, Array]) -> Array:
    """Which rows repeat an earlier line; used-up columns `hash` and `line` are dropped."""
    del columns["line"]
    hashes = pd.Series(columns.pop("hash"), copy=False)
    suspects = hashes.duplicated(keep=False).to_numpy()
    twice = np.zeros(len(hashes), bool)
    if suspects.any():  # equal hashes are proof only together with equal cells
        cells = pd.DataFrame({name: values[suspects] for name, values in columns.items()})
        cells["hash"] = hashes.to_numpy()[suspects]
        twice[suspects] = cells.duplicated()
    return twice


def in_celsius(value: Array, stay: Array, parameter: Array, names: list[str]) -> Array:
    """The values, with those temperature series turned to °C that are clearly in °F.

    A series is a stay's temperatures. It is in °F when it has at least three that can only be
    °F (or the file has no other) and none that can be °C. What fits neither unit stays as it is.
    Converted to two decimals, which no chart's 0.1 °F is finer than.
    """
    chosen = [number for number, name in enumerate(names) if name.casefold() in TEMPERATURES]
    rows = np.flatnonzero(np.isin(parameter, chosen))
    degrees, series = value[rows], stay[rows]
    warm = (degrees > FAHRENHEIT[0]) & (degrees < FAHRENHEIT[1])
    if not warm.any():
        return value
    cool = (degrees > CELSIUS[0]) & (degrees < CELSIUS[1])
    in_f = np.bincount(series[warm], minlength=series.max() + 1)
    in_c = np.bincount(series[cool], minlength=series.max() + 1)
    clearly = (in_f > 0) & (in_c == 0) & ((in_f >= CLEARLY) | (not cool.any()))
    turned = warm & clearly[series]
    converted = value.copy()
    converted[rows[turned]] = np.round((degrees[turned] - 32) / 1.8, 2)
    left = int((in_f > 0).sum() - clearly.sum())
    if turned.any():
        log.info(
            "temperature: %d readings of %d stays are in °F: converted to °C",
            *(turned.sum(), clearly.sum()),
        )
    if left:
        log.warning(
            "temperature: %d stays have values that may be °F, but not their whole series clearly: "
            "left as they are",
            left,
        )
    return converted
