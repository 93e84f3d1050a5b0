"""Reads signal.csv into compact arrays of the valid readings within a stay, without duplicates, in
the pipeline's units.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hospital import cells
from hospital.cells import Dates, Numbers, Parse, missing
from hospital.cleaning import clean
from hospital.clock import DAY, END, SLOTS, hour, sixtieth
from hospital.contents import InputError
from hospital.csv_file import Array, CsvFile, Reject
from hospital.rejected import Rejected
from hospital.stays import StayFinder, Stays, day_text, warn_of_assumed_order
from hospital.units import in_usual_units
from wire.vitals import canonical

log = logging.getLogger(__name__)

SIGNAL_COLUMNS = ("pat_id", "day", "parameter", "value")
OPTIONAL_COLUMNS = ("hour", "minute", "second")
KINDS = {
    "line": np.int32,
    "hash": np.int64,
    "stay": np.int32,
    "slot": np.int64,
    "parameter": np.int32,
    "value": np.float64,
}
UNKNOWN = -1  # stands for the seconds of an empty cell of `hour`


@dataclass(frozen=True)
class Readings:
    """One array entry per reading, in the file's order.

    stay: index into Stays. slot: the moment, day * SLOTS + second. parameter: index into `names`.
    """

    stay: Array
    slot: Array
    parameter: Array
    value: Array
    names: list[str]


class Parameters:
    """Assigns a number to each parameter, in order of first appearance. NULL and NA are names here,
    not missing values."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def parse(self, text: str) -> int:
        return self.numbers.setdefault(cells.name(text), len(self.numbers))


def read_readings(
    file: CsvFile, stays: Stays, date_format: str | None, rejected: Rejected
) -> tuple[Readings, int]:
    """Returns the readings within a stay, and the number of exact duplicates that were dropped.

    A row is a duplicate if its whole line, including unused columns, equals an earlier line. So two
    rows with the same value and time but different row numbers are two measurements.
    """

    def reject(line: int, column: str, value: str, reason: str) -> None:
        rejected.add(file.name, line, column, value, reason)

    dates, parameters = Dates(date_format), Parameters()
    columns = _read(file, stays.finder(), dates, parameters, reject)
    warn_of_assumed_order(file.name, dates)
    if (np.diff(columns["line"]) < 0).any():
        order = np.argsort(columns["line"])
        columns = {name: values[order] for name, values in columns.items()}
    twice = _duplicated(columns)
    if twice.any():
        columns = {name: values[~twice] for name, values in columns.items()}

    def report(row: int, reason: str) -> None:
        reject(int(columns["line"][row]), "value", repr(float(columns["value"][row])), reason)

    names = list(parameters.numbers)
    value, kept = in_usual_units(
        columns["value"], columns["stay"], columns["parameter"], names, report
    )
    columns["value"] = value
    if not kept.all():
        columns = {name: values[kept] for name, values in columns.items()}
    _warn_of_synonyms(file.name, columns["parameter"], names)
    _warn_of_other_values(file.name, columns)
    readings = Readings(
        columns["stay"], columns["slot"], columns["parameter"], columns["value"], names
    )
    return readings, int(twice.sum())


def _read(
    file: CsvFile, finder: StayFinder, dates: Dates, parameters: Parameters, reject: Reject
) -> dict[str, Array]:
    """Returns the columns of KINDS for all accepted rows, in the order of the blocks."""
    parsers: dict[str, Parse] = {
        "pat_id": finder.patient,
        "day": dates.parse_moment,
        "hour": lambda text: UNKNOWN if missing(text) else hour(text),
        "minute": lambda text: 0 if missing(text) else sixtieth(text),
        "second": lambda text: 0 if missing(text) else sixtieth(text),
        "parameter": parameters.parse,
        "value": _numbers(file).parse,
    }
    parsers = {column: parse for column, parse in parsers.items() if column in file.columns}
    # Allocates memory for all lines at once, so that nothing is copied. Memory that is never
    # written to costs nothing.
    columns = {name: np.empty(file.contents.lines, kind) for name, kind in KINDS.items()}
    count = 0
    for block in file.blocks(file.columns, reject):
        rows = clean(file, block, parsers, reject)
        day, second, usable = _moments(rows, reject)
        rows["slot"] = day * SLOTS + second
        rows["stay"] = finder.find(rows["pat_id"], day)
        lost = usable & (rows["stay"] < 0)
        for line, when in zip(rows["line"][lost].tolist(), day[lost].tolist(), strict=True):
            reject(line, "day", day_text(when), "outside the patient's stays")
        usable &= ~lost
        start, count = count, count + int(usable.sum())
        for name, values in columns.items():
            values[start:count] = rows[name][usable]
    columns = {name: values[:count] for name, values in columns.items()}
    if "hour" not in file.columns and not (columns["slot"] % SLOTS).any():
        raise InputError(f"{file.path} has no column hour, and no times in column day")
    return columns


def _moments(rows: dict[str, Array], reject: Reject) -> tuple[Array, Array, Array]:
    """Returns day and second of each row, and a mask of the rows that have exactly one time.

    Rejects the other rows. The time is in `hour`, `minute` and `second`, or after the day; if it is
    in both places, the two times must agree.
    """
    day, with_day = np.divmod(rows["day"], SLOTS)
    hours = rows.get("hour", np.full(len(day), UNKNOWN))
    rest = 60 * rows.get("minute", np.zeros_like(day)) + rows.get("second", np.zeros_like(day))
    # A full hour is combined with the columns `minute` and `second`.
    second = np.where((hours >= 0) & (hours % 3600 == 0), hours + rest, hours)
    twice = (hours >= 0) & (hours % 3600 != 0) & (rest > 0) & (hours % 3600 != rest)
    # If there is an hour column, 00:00:00 after the day counts as no time, because databases write
    # it after every day.
    known = (with_day != END) & ((with_day != 0) | ("hour" not in rows))
    twice |= known & (hours >= 0) & (second != with_day) & (second != with_day // 3600 * 3600)
    second = np.where(known, with_day, second)
    lacking = second == UNKNOWN
    late = second > DAY
    for wrong, reason in (
        (lacking, "missing"),
        (twice, "contradicts the time in other columns"),
        (late & ~twice, "not an hour of the day"),
    ):
        for line, at in zip(rows["line"][wrong].tolist(), hours[wrong].tolist(), strict=True):
            text = "" if at < 0 else f"{at // 3600}:{at // 60 % 60:02}:{at % 60:02}"
            reject(line, "hour", text, reason)
    usable = ~(lacking | twice | late)
    second = np.where(usable, second, 0)
    return day + second // DAY, second % DAY, usable


def _numbers(file: CsvFile) -> Numbers:
    """Returns the parser of `value`; scans the file first if it may have decimal commas."""
    numbers = Numbers()
    if file.contents.has_comma and (file.separator != "," or file.contents.has_quote):
        log.info("%s: looking for decimal commas", file.name)
        for block in file.blocks(("value",), lambda *_: None):
            for text in block.cells["value"].categories:
                numbers.learn(text)
        file.rows = 0
    return numbers


def _duplicated(columns: dict[str, Array]) -> Array:
    """Returns a mask of the rows that repeat an earlier line; removes the column `hash`."""
    hashes = pd.Series(columns.pop("hash"), copy=False)
    suspects = hashes.duplicated(keep=False).to_numpy()
    twice = np.zeros(len(hashes), bool)
    if suspects.any():  # rows with equal hashes may still differ
        cells = pd.DataFrame(
            {name: values[suspects] for name, values in columns.items() if name != "line"}
        )
        cells["hash"] = hashes.to_numpy()[suspects]
        twice[suspects] = cells.duplicated()
    return twice


def _warn_of_synonyms(file: str, parameter: Array, names: list[str]) -> None:
    """Warns of each parameter that the pipeline knows under another name."""
    used = np.bincount(parameter, minlength=len(names)) > 0
    for name in (name for name, one in zip(names, used.tolist(), strict=True) if one):
        if canonical(name) != name:
            log.warning(
                "%s: parameter %r is stored under this name; models and pages know it as %s",
                *(file, name, canonical(name)),
            )


def _warn_of_other_values(file: str, columns: dict[str, Array]) -> None:
    """Warns of readings of one parameter of a stay with different values at the same time."""
    stay, slot, parameter = columns["stay"], columns["slot"], columns["parameter"]
    if not len(slot):
        return
    # One number per stay, parameter and time, because sorting one array is fastest.
    key = slot - slot.min()
    key *= int(stay.max()) + 1
    key += stay
    key *= int(parameter.max()) + 1
    key += parameter
    if not _repeats(np.sort(key)).any():
        return
    order = np.argsort(key, kind="stable")
    other = np.zeros(len(order), bool)
    other[1:] = _repeats(key[order])
    other[1:] &= ~_repeats(columns["value"][order])
    if other.any():
        log.warning(
            "%s: %d readings differ from another reading of the same patient, parameter and time; "
            "all are used (first in line %d)",
            *(file, other.sum(), columns["line"][order[other]].min()),
        )


def _repeats(values: Array) -> Array:
    """A mask of the entries, from the second on, that are equal to the one before them."""
    repeats: Array = values[1:] == values[:-1]
    return repeats
