"""Reads age.csv, with one age per patient or one per stay."""

import logging
import math
import re
from typing import NamedTuple

from hospital.cell_errors import RejectedCell
from hospital.cells import OPEN, Dates, Numbers, missing
from hospital.cleaning import clean
from hospital.csv_file import CsvFile
from hospital.patients import Patients
from hospital.rejected import Rejected

log = logging.getLogger(__name__)

AGE_COLUMNS = ("pat_id", "age")
OPTIONAL_COLUMNS = ("date_admission",)
# De-identified exports hide ages above 89: eICU writes "> 89", and MIMIC-III sets the date of birth
# 300 years before the first admission. In MIMIC-III, the median age of these patients is 91.4
# (https://mimic.mit.edu/docs/iii/tables/patients/).
TOP_CODED_AGE = 91.4
OLDEST = 125.0
TOP_CODED = re.compile(r"(?:>|>=|≥)\s*(?:89|90)|(?:89|90)\s*\+", re.ASCII)
# Ages of one patient that differ by more than this contradict each other.
MOST_YEARS = 30.0
ROUNDING = 1.5  # tolerance in years when an age difference is compared with the time between stays

Key = tuple[int, int]  # number of the patient, day of admission


def age(text: str) -> float:
    """Parses an age in years; infinity for a top-coded age (above 89). Raises RejectedCell."""
    if TOP_CODED.fullmatch(text.strip()):
        return math.inf
    years = Numbers().parse(text)
    if 300 <= years <= 300 + OLDEST - 89:
        return math.inf
    if not 0 <= years <= OLDEST:
        raise RejectedCell("not an age in years")
    return years


class _Row(NamedTuple):
    """An accepted row. day: the day of admission in the row, or OPEN if it has none."""

    line: int
    years: float
    day: int


def read_ages(
    file: CsvFile,
    keys: list[Key],
    patients: Patients,
    date_format: str | None,
    rejected: Rejected,
) -> tuple[dict[Key, float], int]:
    """Returns the known ages of the stays in `keys`, and the number of redundant rows.

    Adds invalid rows, and rows that contradict others, to `rejected`.
    """
    days: dict[int, list[int]] = {}
    for pat_id, day in sorted(keys):
        days.setdefault(pat_id, []).append(day)
    known: dict[Key, float] = {}
    repeated = by_stay = 0
    for pat_id, rows in _read(file, patients, date_format, rejected).items():
        stays = days[pat_id]
        ages = _by_stay(rows, stays)
        by_stay += len(set(ages.values())) > 1
        known |= {(pat_id, day): years for day, years in ages.items()}
        used = set(ages.values())
        unused = [row for row in rows if row.years not in used]
        needed = 1 if len(used) == 1 else len(stays)
        repeated += max(len(rows) - len(unused) - needed, 0)
        reason = "the age belongs to another stay" if used else "other rows have another age"
        for row in unused:
            rejected.add(file.name, row.line, "age", repr(row.years), reason)
    if by_stay:
        log.info("%s: %d patients have different ages in different stays", file.name, by_stay)
    return known, repeated


def _read(
    file: CsvFile, patients: Patients, date_format: str | None, rejected: Rejected
) -> dict[int, list[_Row]]:
    """The accepted rows by patient, in the file's order."""

    def reject(line: int, column: str, value: str, reason: str) -> None:
        rejected.add(file.name, line, column, value, reason)

    dates = Dates(date_format)
    parsers = {"pat_id": patients.parse, "age": age}
    if "date_admission" in file.columns:
        parsers["date_admission"] = lambda text: OPEN if missing(text) else dates.parse(text)
    found: dict[int, list[_Row]] = {}
    top_coded = 0
    for block in file.blocks(file.columns, reject):
        cells = clean(file, block, parsers, reject, {"date_admission": (OPEN, lambda *_: None)})
        named = cells.get("date_admission", cells["line"] * 0 + OPEN)
        for line, pat_id, years, day in zip(
            *(cells[name].tolist() for name in ("line", "pat_id", "age")),
            named.tolist(),
            strict=True,
        ):
            hidden = math.isinf(years)
            top_coded += hidden
            row = _Row(line, TOP_CODED_AGE if hidden else years, day)
            found.setdefault(pat_id, []).append(row)
    if top_coded:
        log.info(
            "%s: %d top-coded ages (above 89) are set to %s", file.name, top_coded, TOP_CODED_AGE
        )
    return {pat_id: sorted(rows) for pat_id, rows in found.items()}


def _by_stay(rows: list[_Row], stays: list[int]) -> dict[int, float]:
    """One patient's age in each stay, by day of admission. The first rule that applies decides:

    - The ages contradict each other (MOST_YEARS): no stay has an age.
    - All ages are equal: all stays have this age.
    - Rows name the day of admission of a stay: their age applies to that stay. Any other stay has
      the age of the last named stay before it or, if there is none, of the first named stay.
    - There are as many rows as stays, and the ages increase as the dates do: the ages are assigned
      in ascending order.
    - Otherwise all stays have the lowest age.
    """
    ages = sorted(row.years for row in rows)
    if ages[-1] - ages[0] > MOST_YEARS:
        return {}
    if ages[0] == ages[-1]:
        return dict.fromkeys(stays, ages[0])
    named = {row.day: row.years for row in reversed(rows) if row.day in stays}
    if named:
        first = min(named)
        before = {day: max((d for d in named if d <= day), default=first) for day in stays}
        return {day: named[before[day]] for day in stays}
    if len(ages) == len(stays) and _agree(ages, stays):
        return dict(zip(stays, ages, strict=True))
    return dict.fromkeys(stays, ages[0])


def _agree(ages: list[float], stays: list[int]) -> bool:
    """Whether the ages differ by the time between the stays, up to ROUNDING. An age of
    TOP_CODED_AGE or more always agrees."""
    return all(
        years >= TOP_CODED_AGE or abs((years - ages[0]) - (day - stays[0]) / 365.25) <= ROUNDING
        for years, day in zip(ages, stays, strict=True)
    )
