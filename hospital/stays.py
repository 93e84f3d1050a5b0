"""Who was in the ICU when: age.csv and admission.csv, joined and made free of contradictions."""

import logging
import math
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np

from hospital.cells import OPEN, TOP_CODED_AGE, Dates, Refused, age, patient
from hospital.csv_file import Array, CsvFile, clean
from hospital.rejected import Rejected

log = logging.getLogger(__name__)

AGE_COLUMNS = ("pat_id", "age")
ADMISSION_COLUMNS = ("pat_id", "date_admission", "date_discharge")
NAMED = 5  # patients a log line names


@dataclass(frozen=True)
class Stays:
    """The stays ordered by patient and admission, one array entry each.

    Days count from 0001-01-01; `discharge` is OPEN and `age` NaN when unknown.
    """

    pat_id: Array
    age: Array
    admission: Array
    discharge: Array

    def __len__(self) -> int:
        return len(self.pat_id)

    def finder(self) -> "StayFinder":
        return StayFinder(self)


class StayFinder:
    """Finds the stays of many readings at once."""

    def __init__(self, stays: Stays) -> None:
        patients, rank = np.unique(stays.pat_id, return_inverse=True)
        self._rank_of = {pat_id: place for place, pat_id in enumerate(patients.tolist())}
        self._discharge = stays.discharge
        # One sorted number for (patient, day). `reach` is the last day that this stay or an
        # earlier one of the patient lasts: beyond it there is no use in looking further back.
        self._starts = (rank << 32) | stays.admission
        self._reach = np.maximum.accumulate((rank << 32) | stays.discharge)

    def patient(self, text: str) -> int:
        """The rank of a patient among those admitted, from the cell of a CSV."""
        rank = self._rank_of.get(patient(text))
        if rank is None:
            raise Refused("no admission of this patient")
        return rank

    def find(self, rank: Array, day: Array) -> Array:
        """For each reading the index of its stay, -1 for none.

        That is the latest admission of the patient whose days, both ends included, contain it.
        """
        wanted = (rank.astype(np.int64) << 32) | day
        stay = np.searchsorted(self._starts, wanted, side="right") - 1
        over = np.arange(len(stay))
        while len(over):
            at = stay[over]
            stay[over[(at < 0) | (self._reach[at] < wanted[over])]] = -1
            at = stay[over]
            over = over[(at >= 0) & (self._discharge[at] < day[over])]
            stay[over] -= 1  # a later stay lies within an earlier, longer one
        return stay


def read_stays(
    ages: CsvFile, admissions: CsvFile, date_format: str | None, rejected: Rejected
) -> tuple[Stays, dict[str, int]]:
    """Both files' stays, and the exact duplicates left out of each file.

    Rows that cannot be used, or contradict others, go to `rejected`:
    ages that differ for one patient (all of them: none can be trusted), ages without an admission,
    stays discharged before admission, and the same admission with several discharges (all but
    the latest known: an earlier export, or an empty date, knows less).
    """
    duplicates: dict[str, int] = {}
    found = _read_admissions(admissions, date_format, rejected, duplicates)
    keys = sorted(found)
    years = _read_ages(ages, {pat_id for pat_id, _ in keys}, rejected, duplicates)
    stays = Stays(
        pat_id=np.array([pat_id for pat_id, _ in keys], np.int64),
        age=np.array([years.get(pat_id, math.nan) for pat_id, _ in keys]),
        admission=np.array([admission for _, admission in keys], np.int64),
        discharge=np.array([found[key] for key in keys], np.int64),
    )
    _warn_of_missing_ages(ages.name, keys, years)
    overlaps = sum(one[0] == other[0] and found[one] > other[1] for one, other in pairwise(keys))
    if overlaps:
        log.warning(
            "%s: %d stays begin before the patient's earlier one has ended; "
            "readings of shared days go to the later stay",
            *(admissions.name, overlaps),
        )
    return stays, duplicates


def _read_admissions(
    file: CsvFile, date_format: str | None, rejected: Rejected, duplicates: dict[str, int]
) -> dict[tuple[int, int], int]:
    def refuse(line: int, column: str, value: str, reason: str) -> None:
        rejected.add(file.name, line, column, value, reason)

    dates = Dates(date_format)
    parsers = {
        "pat_id": patient,
        "date_admission": dates.parse,
        "date_discharge": dates.parse_discharge,
    }
    found: dict[tuple[int, int], int] = {}
    told_at: dict[tuple[int, int], int] = {}
    duplicates[file.name] = 0
    for block in file.blocks(file.columns, refuse):
        rows = clean(file, block, parsers, refuse)
        for line, pat_id, admission, discharge in zip(
            *(rows[name].tolist() for name in ("line", *parsers)), strict=True
        ):
            key = (pat_id, admission)
            if discharge < admission:
                refuse(line, "date_discharge", day_text(discharge), "discharge before admission")
                continue
            if key not in found:
                found[key], told_at[key] = discharge, line
                continue
            if discharge == found[key]:
                duplicates[file.name] += 1
                continue
            loser, lost_line = discharge, line
            if found[key] == OPEN or found[key] < discharge < OPEN:
                loser, lost_line = found[key], told_at[key]
                found[key], told_at[key] = discharge, line
            reason = "another row of this stay has a later discharge"
            refuse(lost_line, "date_discharge", day_text(loser), reason)
    warn_of_assumed_order(file.name, dates)
    return found


def _read_ages(
    file: CsvFile, admitted: set[int], rejected: Rejected, duplicates: dict[str, int]
) -> dict[int, float]:
    def refuse(line: int, column: str, value: str, reason: str) -> None:
        rejected.add(file.name, line, column, value, reason)

    rows_of: dict[int, list[tuple[float, int]]] = {}
    for block in file.blocks(file.columns, refuse):
        rows = clean(file, block, {"pat_id": patient, "age": age}, refuse)
        for line, pat_id, years in zip(
            *(rows[name].tolist() for name in ("line", "pat_id", "age")), strict=True
        ):
            rows_of.setdefault(pat_id, []).append((years, line))
    known: dict[int, float] = {}
    duplicates[file.name] = top_coded = 0
    for pat_id, rows_here in rows_of.items():
        values = {years for years, _ in rows_here}
        if pat_id in admitted and len(values) == 1:
            duplicates[file.name] += len(rows_here) - 1
            top_coded += math.inf in values
            years = values.pop()
            known[pat_id] = TOP_CODED_AGE if math.isinf(years) else years
            continue
        for years, line in rows_here:
            if pat_id not in admitted:
                refuse(line, "pat_id", str(pat_id), "no admission of this patient")
            else:
                refuse(line, "age", repr(years), "other rows give the patient another age")
    if top_coded:
        log.info("%s: %d ages above 89 taken as %s", file.name, top_coded, TOP_CODED_AGE)
    return known


def _warn_of_missing_ages(name: str, keys: list[tuple[int, int]], years: dict[int, float]) -> None:
    lacking = sorted({pat_id for pat_id, _ in keys if pat_id not in years})
    if lacking:
        named = ", ".join(map(str, lacking[:NAMED])) + (", …" if len(lacking) > NAMED else "")
        log.warning(
            "%s: no age for %d of the patients admitted, so no prediction for them: %s",
            *(name, len(lacking), named),
        )


def warn_of_assumed_order(name: str, dates: Dates) -> None:
    if dates.untold:
        log.warning(
            "%s: no date in it tells whether %s is dd/mm/YYYY or mm/dd/YYYY; read as dd/mm/YYYY, "
            "the documented format. Set DATE_FORMAT to say so, or otherwise",
            *(name, dates.untold),
        )


def day_text(day: int) -> str:
    """ISO date of a day; empty for OPEN."""
    return "" if day == OPEN else date.fromordinal(day).isoformat()
