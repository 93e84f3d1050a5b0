"""Imports the PhysioNet/Computing in Cardiology Challenge 2012: the first 48 hours of ICU stays.

Source: one `<RecordID>.txt` per stay (`Time,Parameter,Value`, time as hh:mm since admission, -1 for
missing) in folders or archives named set-a, set-b, …, and `Outcomes-a.txt`, … beside them.
https://doi.org/10.22489/CinC.2012 (Silva et al.)
"""

import csv
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path, PurePosixPath

from training.importers.archive import members
from training.importers.records import (
    ImportFailure,
    Reading,
    Report,
    Stay,
    invented_admission,
    reported_age,
)
from wire.vitals import canonical

UNITS = {
    "1": "coronary care",
    "2": "cardiac surgery recovery",
    "3": "medical",
    "4": "surgical",
}
_SEXES: dict[float | None, str] = {0.0: "female", 1.0: "male"}
#: A cuff pressure counts only if there is no arterial pressure in the same minute.
_CUFFS = {"NISysABP": "SysABP", "NIDiasABP": "DiasABP", "NIMAP": "MAP"}
_DAY = 24 * 60  # minutes


def records(source: Path, report: Report) -> Iterator[Stay | Reading]:
    """Yields each stay, then its readings in order of time."""
    outcomes = _outcomes(source)
    report.notes += [
        "the source has no dates: admission days are invented (a day of 2019 by RecordID)",
        "the hour of a reading is the hour of the stay (hour 0 = the first after admission)",
        "spo2 is SaO2: saturation of arterial blood samples, not pulse oximetry",
        "date_discharge is the admission plus the length of stay in the hospital, not in the ICU",
        "died_after_hours is known to the day only, and includes deaths after discharge",
    ]
    for name, text in members(source, ".txt"):
        if name.stem.isdigit():
            yield from _stay(name, text, outcomes, report)


def _outcomes(source: Path) -> dict[int, Mapping[str, str]]:
    """Reads the Outcomes files, a few thousand lines, into memory."""
    folder = source if source.is_dir() else source.parent
    outcomes: dict[int, Mapping[str, str]] = {}
    for path in sorted(folder.rglob("Outcomes-*.txt")):
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                outcomes[int(row["RecordID"])] = row
    if not outcomes:
        raise ImportFailure(f"{folder}: no Outcomes-*.txt here (RecordID, …, In-hospital_death)")
    return outcomes


def _stay(
    path: PurePosixPath,
    text: str,
    outcomes: Mapping[int, Mapping[str, str]],
    report: Report,
) -> Iterator[Stay | Reading]:
    pat_id = int(path.stem)
    rows = list(_rows(text, path, report))
    described = {name: value for minute, name, value in rows if minute == 0}
    outcome = outcomes.get(pat_id)
    if outcome is None:
        report.dropped["stay without a line in the Outcomes files"] += 1
        return
    admission = invented_admission(pat_id)
    days = int(outcome["Length_of_stay"])
    last_day = max((minute for minute, _, _ in rows), default=0) // _DAY
    if days < last_day:
        why = "unknown" if days < 0 else "shorter than the record"
        report.converted[f"length of stay {why}: no discharge date"] += 1
    survival = int(outcome["Survival"])
    yield Stay(
        pat_id,
        admission,
        admission + timedelta(days=days) if days >= last_day else None,
        reported_age(described["Age"], report) if "Age" in described else None,
        {
            "died_in_hospital": int(outcome["In-hospital_death"]),
            "died_after_hours": 24 * survival if survival >= 0 else None,
            "unit": UNITS.get(f"{described.get('ICUType', 0):.0f}", "unknown"),
            "sex": _SEXES.get(described.get("Gender"), "unknown"),
            "cohort": path.parent.name,
            "saps1": _known(outcome["SAPS-I"]),
            "sofa": _known(outcome["SOFA"]),
        },
    )
    invasive = {(minute, name) for minute, name, _ in rows if name in _CUFFS.values()}
    for minute, name, value in rows:
        if name in ("RecordID", "Age"):
            continue
        if (minute, _CUFFS.get(name)) in invasive:
            report.dropped["cuff pressure in the same minute as the invasive one"] += 1
            continue
        if minute // 60 == 48:
            report.converted["hour 48:00, written as hour 0 of the third day"] += 1
        day = admission + timedelta(days=minute // _DAY)
        yield Reading(pat_id, day, minute % _DAY, canonical(name.lower()), value)


def _rows(text: str, path: PurePosixPath, report: Report) -> Iterator[tuple[int, str, float]]:
    """Yields (minutes since admission, parameter, value) of each accepted line."""
    lines = csv.reader(text.splitlines())
    if next(lines, None) != ["Time", "Parameter", "Value"]:
        raise ImportFailure(f"{path}: the first line is not 'Time,Parameter,Value'")
    for row in lines:
        try:
            time, name, raw = row
            hours, minutes = time.split(":")
            minute, value = 60 * int(hours) + int(minutes), float(raw)
        except ValueError:
            report.dropped["line that is not hh:mm,parameter,number"] += 1
            continue
        if not name:
            report.dropped["line without a parameter name"] += 1
        elif value == -1:
            report.dropped["-1, which means missing in the source"] += 1
        else:
            yield minute, name, value


def _known(raw: str) -> int | None:
    return int(raw) if int(raw) >= 0 else None
