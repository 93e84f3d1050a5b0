"""Reads the stays from admission.csv, and their ages from age.csv."""

import logging
import math
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hospital.ages import read_ages
from hospital.cells import OPEN, Dates
from hospital.cleaning import clean
from hospital.clock import END, SLOTS
from hospital.csv_file import Array, CsvFile
from hospital.patients import Names, Patients
from hospital.rejected import Rejected

log = logging.getLogger(__name__)

ADMISSION_COLUMNS = ("pat_id", "date_admission", "date_discharge")
OPTIONAL_COLUMNS = ("identifier", "place")
LATE = 90  # more days than this between the last reading and the discharge cause a warning
NAMED = 5  # maximum number of patients in a log message
Key = tuple[int, int]  # number of the patient, day of admission


@dataclass(frozen=True)
class Stays:
    """The stays in order of patient and admission, with one array entry each.

    admission, discharge: days since 0001-01-01. admitted, discharged: seconds of these days. An
    unknown second is END, an unknown discharge OPEN, and an unknown age NaN.
    """

    patients: Patients
    pat_id: Array
    age: Array
    admission: Array
    admitted: Array
    discharge: Array
    discharged: Array
    identifier: list[str]
    place: list[str]

    def __len__(self) -> int:
        return len(self.pat_id)

    def finder(self) -> "StayFinder":
        return StayFinder(self)


class StayFinder:
    """Finds the stay of each reading, for arrays of readings."""

    def __init__(self, stays: Stays) -> None:
        patients, rank = np.unique(stays.pat_id, return_inverse=True)
        self._rank_of = {pat_id: place for place, pat_id in enumerate(patients.tolist())}
        self._patients = stays.patients
        self._discharge = stays.discharge
        # Each number stands for (patient, day). `_starts` is sorted. For each stay, `_reach` has
        # the last day that this stay or an earlier stay of the patient includes.
        self._starts = (rank << 32) | stays.admission
        self._reach = np.maximum.accumulate((rank << 32) | stays.discharge)

    def patient(self, text: str) -> int:
        """The rank, among the admitted patients, of the patient that a cell names. Raises
        RejectedCell."""
        return self._rank_of[self._patients.parse(text)]

    def find(self, rank: Array, day: Array) -> Array:
        """The index of each reading's stay, or -1.

        A reading belongs to the patient's latest stay that includes its day. The days of admission
        and discharge belong to the stay.
        """
        wanted = (rank.astype(np.int64) << 32) | day
        stay = np.searchsorted(self._starts, wanted, side="right") - 1
        over = np.arange(len(stay))
        while len(over):
            at = stay[over]
            stay[over[(at < 0) | (self._reach[at] < wanted[over])]] = -1
            at = stay[over]
            over = over[(at >= 0) & (self._discharge[at] < day[over])]
            stay[over] -= 1  # an earlier, longer stay may include the day
        return stay


class _Row(NamedTuple):
    """An accepted row of admission.csv. admission, discharge: day * SLOTS + second."""

    line: int
    patient: str
    admission: int
    discharge: int
    identifier: str
    place: str


def read_stays(
    ages: CsvFile, admissions: CsvFile, date_format: str | None, rejected: Rejected
) -> tuple[Stays, dict[str, int]]:
    """Returns the stays, and the number of dropped duplicates of each file.

    Adds invalid rows, and rows that contradict others, to `rejected`. A discharge that is
    unreadable or on a day before the admission is dropped, and the stay remains open. If an
    admission has several discharges, the latest counts, because an earlier discharge or an empty
    cell is from an older export.
    """
    rows = _read_admissions(admissions, date_format, rejected)
    patients = Patients(row.patient for row in rows)
    found, repeated = _distinct(admissions.name, rows, patients, rejected)
    keys = sorted(found)
    years, duplicates = read_ages(ages, keys, patients, date_format, rejected)
    moments = np.array([found[key][2:4] for key in keys], np.int64).reshape(-1, 2)
    day, second = np.divmod(moments, SLOTS)
    stays = Stays(
        patients=patients,
        pat_id=np.array([pat_id for pat_id, _ in keys], np.int64),
        age=np.array([years.get(key, math.nan) for key in keys]),
        admission=day[:, 0],
        admitted=second[:, 0],
        discharge=day[:, 1],
        # A discharge before the admission on the same day has a wrong time; END replaces it.
        discharged=np.where(moments[:, 1] < moments[:, 0], END, second[:, 1]),
        identifier=[
            found[key].identifier or (found[key].patient if patients.are_numbered else "")
            for key in keys
        ],
        place=[found[key].place for key in keys],
    )
    _warn_of_missing_ages(ages.name, keys, years, patients)
    overlaps = sum(
        one[0] == other[0] and stays.discharge[place] > other[1]
        for place, (one, other) in enumerate(pairwise(keys))
    )
    if overlaps:
        log.warning(
            "%s: %d stays begin before the patient's previous stay ends; "
            "readings of shared days go to the later stay",
            *(admissions.name, overlaps),
        )
    return stays, {admissions.name: repeated, ages.name: duplicates}


def _read_admissions(file: CsvFile, date_format: str | None, rejected: Rejected) -> list[_Row]:
    """The accepted rows in the file's order."""

    def reject(line: int, column: str, value: str, reason: str) -> None:
        rejected.add(file.name, line, column, value, reason)

    def report(line: int, column: str, value: str, reason: str) -> None:
        rejected.add(file.name, line, column, value, reason, row_is_used=True)

    dates, patients, names = Dates(date_format), Names(), Names()
    parsers = {
        "pat_id": patients.parse_identifier,
        "date_admission": dates.parse_moment,
        "date_discharge": dates.parse_discharge,
        "identifier": names.parse,
        "place": names.parse,
    }
    parsers = {column: parsers[column] for column in file.columns}
    optional = {"date_discharge": (OPEN * SLOTS, report)}
    optional |= dict.fromkeys(OPTIONAL_COLUMNS, (0, report))
    found = []
    for block in file.blocks(file.columns, reject):
        rows = clean(file, block, parsers, reject, optional)
        ids, others = list(patients.numbers), list(names.numbers)
        nothing = np.zeros(len(rows["line"]), np.int64)
        columns = [rows.get(name, nothing).tolist() for name in ("line", *ADMISSION_COLUMNS)]
        columns += [rows.get(name, nothing).tolist() for name in OPTIONAL_COLUMNS]
        for line, patient, admission, discharge, identifier, place in zip(*columns, strict=True):
            if discharge // SLOTS < admission // SLOTS:
                day = day_text(discharge // SLOTS)
                report(line, "date_discharge", day, "discharge before admission")
                discharge = OPEN * SLOTS
            found.append(
                _Row(line, ids[patient], admission, discharge, others[identifier], others[place])
            )
    warn_of_assumed_order(file.name, dates)
    return sorted(found)


def _distinct(
    name: str, rows: list[_Row], patients: Patients, rejected: Rejected
) -> tuple[dict[Key, _Row], int]:
    """Returns one row per stay, and the number of duplicates."""
    found: dict[Key, _Row] = {}
    repeated = 0
    for row in rows:
        key = (patients.parse(row.patient), row.admission // SLOTS)
        known = found.setdefault(key, row)
        if known is row:
            continue
        if known.discharge == row.discharge:
            repeated += 1
            continue
        loser = row
        if known.discharge // SLOTS == OPEN or known.discharge < row.discharge < OPEN * SLOTS:
            loser, found[key] = known, row
        later = "a later discharge" if loser.discharge // SLOTS != OPEN else "a discharge"
        reason = f"another row of this stay has {later}"
        rejected.add(name, loser.line, "date_discharge", day_text(loser.discharge // SLOTS), reason)
    return found, repeated


def _warn_of_missing_ages(
    name: str, keys: list[Key], years: dict[Key, float], patients: Patients
) -> None:
    lacking = {key[0] for key in keys if key not in years}
    if lacking:
        texts = [text for text, number in patients.numbers.items() if number in lacking]
        log.warning(
            "%s: no age for %d patients, so models that need it make no predictions for them: %s",
            *(name, len(lacking), ", ".join(texts[:NAMED]) + (", …" if texts[NAMED:] else "")),
        )


def warn_of_late_discharges(stays: Stays, of: Array, slots: Array) -> None:
    """Warns of discharges long after the stay's last reading or, if it has none, the last one of
    all stays. of: the index of each reading's stay. slots: the moment of each reading.
    """
    if not len(slots):
        return
    last = np.full(len(stays), -1)
    np.maximum.at(last, of, slots // SLOTS)
    last[last < 0] = last.max()
    late = np.flatnonzero((stays.discharge != OPEN) & (stays.discharge - last > LATE))
    if len(late):
        log.warning(
            "admission.csv: %d discharges are more than %d days after the stay's last reading, "
            "such as %s; the stay counts as open until then",
            *(len(late), LATE, day_text(int(stays.discharge[late[0]]))),
        )


def warn_of_assumed_order(name: str, dates: Dates) -> None:
    if dates.assumed:
        log.warning(
            "%s: no date shows whether %s is dd/mm/YYYY or mm/dd/YYYY; reading dd/mm/YYYY, "
            "the documented format. Set DATE_FORMAT to confirm or change this",
            *(name, dates.assumed),
        )


def day_text(day: int) -> str:
    """The ISO date of a day; empty for OPEN."""
    return "" if day == OPEN else date.fromordinal(day).isoformat()
