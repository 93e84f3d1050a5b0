"""Imports MIMIC-III and MIMIC-IV: ICU stays of the Beth Israel Deaconess Medical Center.

Source: a folder with the tables ICUSTAYS, PATIENTS, CHARTEVENTS, D_ITEMS and, for deaths in the
hospital, ADMISSIONS, as .csv or .csv.gz, at any depth; names in upper or lower case.
https://mimic.mit.edu (Johnson et al.)
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from training.importers.buckets import by_stay
from training.importers.records import Reading, Report, Stay, reported_age
from training.importers.tables import Row, find, read, time, whole

#: Parameter -> itemids, grouped as in mimic-code's concepts (vitals_first_day, vitalsign). Itemids
#: of six digits are from MetaVision (MIMIC-IV and a part of MIMIC-III), shorter ones from CareVue
#: (MIMIC-III). If several sources have a value in the same minute, the first in the list counts:
#: arterial line, second arterial line, cuff; for the respiration rate, the observed rate before the
#: ventilator's.
SOURCES: dict[str, tuple[tuple[int, ...], ...]] = {
    "blood_pressure": ((220050, 51), (225309, 6701), (220179, 455, 442)),
    "respiration_rate": ((220210, 618), (224690, 615)),
    "temperature": ((223761, 223762, 678, 676),),
    "heart_rate": ((220045, 211),),
    "spo2": ((220277, 646),),
}
#: itemid -> (parameter, rank of the source).
ITEMS = {
    item: (parameter, rank)
    for parameter, sources in SOURCES.items()
    for rank, items in enumerate(sources)
    for item in items
}
_FAHRENHEIT = {223761, 678}
#: Charting may start before the stay. Readings that are at most this time before the stay belong to
#: it.
LEAD_IN = timedelta(hours=1)


class IcuStay(NamedTuple):
    """The columns of ICUSTAYS that assign events to stays."""

    pat_id: int
    begin: datetime
    end: datetime | None


def records(source: Path, report: Report) -> Iterator[Stay | Reading]:
    """Yields all stays, then the readings stay by stay, each in order of time.

    CHARTEVENTS may come in any order; it is read once, as a stream.
    """
    report.notes += [
        "pat_id is subject_id; stays and discharges are those of the ICU",
        "readings of the hour before a stay began are kept",
        "dates are as in the source, which shifts them into the future, differently per patient",
    ]
    stays: dict[int, IcuStay] = {}
    for stay_id, stay, row in _stays(source, report):
        stays[stay_id] = stay
        yield row
    _report_items(source, report)
    for bucket in by_stay(_events(source, report)):
        yield from _readings(bucket, stays, report)


def _stays(source: Path, report: Report) -> Iterator[tuple[int, IcuStay, Stay]]:
    patients = {row["SUBJECT_ID"]: row for row in read(source, "PATIENTS")}
    admissions: dict[str, Row] = {}
    if find(source, "ADMISSIONS"):
        admissions = {row["HADM_ID"]: row for row in read(source, "ADMISSIONS")}
    else:
        report.notes.append("no ADMISSIONS table: died_in_hospital is empty")
    seen: set[tuple[int, object]] = set()
    for row in read(source, "ICUSTAYS"):
        patient = patients.get(row["SUBJECT_ID"])
        if not row["INTIME"] or patient is None:
            report.dropped["stay without a start or without a patient"] += 1
            continue
        try:
            stay_id = whole(row.get("STAY_ID") or row["ICUSTAY_ID"])
            placed, stay = _stay(row, patient, admissions.get(row["HADM_ID"], {}), report)
        except ValueError:
            report.dropped["stay with an unreadable cell"] += 1
            continue
        if (stay.pat_id, stay.date_admission) in seen:
            report.dropped["second stay of a patient that began on the same day"] += 1
            continue
        seen.add((stay.pat_id, stay.date_admission))
        yield stay_id, placed, stay


def _stay(row: Row, patient: Row, admission: Row, report: Report) -> tuple[IcuStay, Stay]:
    pat_id, begin = whole(row["SUBJECT_ID"]), time(row["INTIME"])
    end = time(row["OUTTIME"]) if row["OUTTIME"] else None
    died, to_the_minute = _death(patient, admission)
    in_icu = False
    if died and end:
        # If only the day of death is known, the patient died in the ICU if that day is before
        # the last day there.
        in_icu = died <= end if to_the_minute else died.date() < end.date()
    outcome = {
        "died_in_hospital": admission.get("HOSPITAL_EXPIRE_FLAG"),
        "died_in_icu": int(in_icu),
        "died_after_hours": died and _hours(begin, died),
        "unit": row["FIRST_CAREUNIT"],
        "sex": patient.get("GENDER", ""),
        "cohort": row.get("DBSOURCE") or patient.get("ANCHOR_YEAR_GROUP", ""),
    }
    age = reported_age(_age(patient, begin), report)
    return IcuStay(pat_id, begin, end), Stay(
        pat_id, begin.date(), end.date() if end else None, age, outcome
    )


def _death(patient: Row, admission: Row) -> tuple[datetime | None, bool]:
    """The time of death, None if there is none, and whether it is known to the minute. If only the
    day is known, the time is the end of that day.
    """
    if admission.get("DEATHTIME"):
        return time(admission["DEATHTIME"]), True
    if not patient.get("DOD"):
        return None, False
    return time(patient["DOD"]).replace(hour=23, minute=59), False


def _hours(begin: datetime, end: datetime) -> int:
    """Hours since midnight of the day of admission, as in the pipeline, rounded up."""
    return math.ceil((end - begin.replace(hour=0, minute=0)) / timedelta(hours=1))


def _age(patient: Row, at: datetime) -> float:
    """The age in years at the time `at`: from the date of birth in MIMIC-III, from the anchor year
    in MIMIC-IV."""
    if "DOB" in patient:
        born = time(patient["DOB"])
        return float(at.year - born.year - ((at.month, at.day) < (born.month, born.day)))
    return float(whole(patient["ANCHOR_AGE"]) + at.year - whole(patient["ANCHOR_YEAR"]))


def _report_items(source: Path, report: Report) -> None:
    """Reports the labels of the items in D_ITEMS, so that a person can check them."""
    labels = {row["ITEMID"]: row["LABEL"] for row in read(source, "D_ITEMS")}
    for item, (parameter, _) in ITEMS.items():
        if str(item) in labels:
            report.notes.append(f"itemid {item} ({labels[str(item)]}) is read as {parameter}")


def _events(source: Path, report: Report) -> Iterator[tuple[int, str, int, str]]:
    """Yields the stay, the time, the item and the value of each usable event."""
    left_out: Counter[str] = Counter()
    for row in read(source, "CHARTEVENTS"):
        try:
            if reason := _unusable(row):
                left_out[reason] += 1
                continue
            stay_id = whole(row.get("STAY_ID") or row.get("ICUSTAY_ID") or "")
            at, item = time(row["CHARTTIME"]), whole(row["ITEMID"])
        except ValueError:
            left_out["event with an unreadable cell"] += 1
            continue
        yield stay_id, at.isoformat(), item, row["VALUENUM"]
    report.dropped.update(left_out)


def _unusable(row: Row) -> str:
    """The reason why an event is not imported, or an empty text. Raises ValueError for an
    unreadable cell.
    """
    if whole(row["ITEMID"]) not in ITEMS:
        return "event of an item that is not imported"
    if row.get("ERROR") in ("1", "1.0"):
        return "event that the source marks as an error"
    if not row["VALUENUM"] or not math.isfinite(float(row["VALUENUM"])):
        return "event without a number"
    if not (row.get("STAY_ID") or row.get("ICUSTAY_ID")):
        return "event without a stay"
    return ""


def _readings(
    bucket: list[list[str]], stays: Mapping[int, IcuStay], report: Report
) -> Iterator[Stay | Reading]:
    events = [
        (int(stay_id), time(at), int(item), float(value)) for stay_id, at, item, value in bucket
    ]
    events.sort(key=lambda event: event[:2])
    best: dict[tuple[int, datetime, str], int] = {}
    for stay_id, at, item, _ in events:
        parameter, rank = ITEMS[item]
        minute = (stay_id, at, parameter)
        best[minute] = min(rank, best.get(minute, rank))
    for stay_id, at, item, value in events:
        stay = stays.get(stay_id)
        parameter, rank = ITEMS[item]
        if stay is None:
            report.dropped["event of a stay that is not imported"] += 1
        elif at < stay.begin - LEAD_IN or (stay.end is not None and at > stay.end):
            report.dropped["event outside its stay"] += 1
        elif rank > best[stay_id, at, parameter]:
            report.dropped[f"{parameter} in the same minute from a better source"] += 1
        else:
            if item in _FAHRENHEIT:
                report.converted["temperature in °F, written in °C"] += 1
                value = round((value - 32) / 1.8, 2)
            if at < stay.begin:
                report.converted["event in the hour before the stay (kept)"] += 1
            if at.date() < stay.begin.date():
                # In the pipeline, a stay starts at midnight.
                report.converted[
                    "event before the day of admission, written as its first minute"
                ] += 1
                at = stay.begin.replace(hour=0, minute=0)
            yield Reading(stay.pat_id, at.date(), 60 * at.hour + at.minute, parameter, value)
