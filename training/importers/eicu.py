"""Imports the eICU Collaborative Research Database: ICU stays of many hospitals of the United
States.

Source: a folder with the tables patient and at least one of vitalPeriodic, vitalAperiodic, lab and
nurseCharting, as .csv or .csv.gz, at any depth. https://eicu-crd.mit.edu (Pollard et al.)
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from training.importers.buckets import by_stay
from training.importers.records import (
    ABOVE_89,
    ImportFailure,
    Reading,
    Report,
    Stay,
    invented_admission,
    reported_age,
)
from training.importers.tables import Row, find, read, whole
from wire.vitals import canonical

#: The columns of the monitor's tables: parameter and rank of the source. Of several values in one
#: minute, the one with the lowest rank counts. Ranks of a pressure: 0 arterial line, 1 charted
#: arterial line, 2 cuff, 3 charted cuff.
PERIODIC = {
    "TEMPERATURE": ("temperature", 0),
    "SAO2": ("spo2", 0),
    "HEARTRATE": ("heart_rate", 0),
    "RESPIRATION": ("respiration_rate", 0),
    "SYSTEMICSYSTOLIC": ("blood_pressure", 0),
    "SYSTEMICDIASTOLIC": ("blood_pressure_diastolic", 0),
    "SYSTEMICMEAN": ("blood_pressure_mean", 0),
}
APERIODIC = {
    "NONINVASIVESYSTOLIC": ("blood_pressure", 2),
    "NONINVASIVEDIASTOLIC": ("blood_pressure_diastolic", 2),
    "NONINVASIVEMEAN": ("blood_pressure_mean", 2),
}
#: The rows of nurseCharting by label and name, grouped as in the concepts of eicu-code.
CHARTED = {
    ("Glasgow coma score", "GCS Total"): ("gcs", 0),
    ("Score (Glasgow Coma Scale)", "Value"): ("gcs", 1),
    ("Heart Rate", "Heart Rate"): ("heart_rate", 1),
    ("Respiratory Rate", "Respiratory Rate"): ("respiration_rate", 1),
    ("O2 Saturation", "O2 Saturation"): ("spo2", 1),
    ("Temperature", "Temperature (C)"): ("temperature", 1),
    ("Temperature", "Temperature (F)"): ("temperature", 2),
    ("Invasive BP", "Invasive BP Systolic"): ("blood_pressure", 1),
    ("Invasive BP", "Invasive BP Diastolic"): ("blood_pressure_diastolic", 1),
    ("Invasive BP", "Invasive BP Mean"): ("blood_pressure_mean", 1),
    ("Non-Invasive BP", "Non-Invasive BP Systolic"): ("blood_pressure", 3),
    ("Non-Invasive BP", "Non-Invasive BP Diastolic"): ("blood_pressure_diastolic", 3),
    ("Non-Invasive BP", "Non-Invasive BP Mean"): ("blood_pressure_mean", 3),
}
FAHRENHEIT = ("temperature", 2)
#: Laboratory values whose names are not among the pipeline's synonyms.
LABS = {
    "ALT (SGPT)": "alt",
    "AST (SGOT)": "ast",
    "alkaline phos.": "alp",
    "BUN": "bun",
    "FiO2": "fio2",
    "HCO3": "bicarbonate",
    "Hct": "hematocrit",
    "WBC x 1000": "wbc",
    "platelets x 1000": "platelets",
    "paCO2": "paco2",
    "paO2": "pao2",
    "total bilirubin": "bilirubin",
    "troponin - I": "troponin_i",
    "troponin - T": "troponin_t",
    **{name: name for name in ("albumin", "creatinine", "glucose", "lactate", "pH")},
    **{name: name for name in ("magnesium", "potassium", "sodium")},
}
#: Charting may start before the stay. Readings that are at most this time before the stay belong to
#: it.
LEAD_IN = timedelta(hours=1)


class IcuStay(NamedTuple):
    """A stay's patient, begin and end, which decide whether a reading belongs to the stay."""

    pat_id: int
    begin: datetime
    end: datetime


def records(source: Path, report: Report) -> Iterator[Stay | Reading]:
    """Yields every stay, then the readings stay by stay, each in order of time."""
    report.notes += [
        "stays and discharges are those of the ICU, not of the hospital",
        "pat_id is uniquepid without its hyphen: 002-10009 is 200010009",
        "the source has no dates: admission days are invented (a day of 2019 by hospital stay), "
        "and so is the order of a patient's hospital stays; times of the day are as in the source",
        "readings of the hour before a stay began are kept",
        "died_after_hours is the time of discharge from the hospital, for patients who died",
    ]
    stays: dict[int, IcuStay] = {}
    seen: set[tuple[int, object]] = set()
    for row in read(source, "patient"):
        try:
            stay_id, placed, stay = _stay(row, report)
        except ValueError:
            report.dropped["stay with an unreadable cell"] += 1
            continue
        if (stay.pat_id, stay.date_admission) in seen:
            report.dropped["second stay of a patient that began on the same day"] += 1
            continue
        seen.add((stay.pat_id, stay.date_admission))
        stays[stay_id] = placed
        yield stay
    for bucket in by_stay(_events(source, report)):
        yield from _readings(bucket, stays, report)


def _stay(row: Row, report: Report) -> tuple[int, IcuStay, Stay]:
    """Converts a row to a stay. Raises ValueError for an unreadable cell."""
    hospital, _, number = row["UNIQUEPID"].partition("-")
    pat_id = whole(hospital) * 10**8 + whole(number)
    # The offsets are minutes since the admission to the unit.
    admitted = invented_admission(whole(row["PATIENTHEALTHSYSTEMSTAYID"]))
    clock = datetime.strptime(row["UNITADMITTIME24"], "%H:%M:%S").time()  # noqa: DTZ007
    days_before = max(0, -whole(row["HOSPITALADMITOFFSET"] or "0")) // (24 * 60)
    begin = datetime.combine(admitted, clock.replace(second=0)) + timedelta(days=days_before)
    end = begin + timedelta(minutes=whole(row["UNITDISCHARGEOFFSET"]))
    died = {"Expired": 1, "Alive": 0}.get(row["HOSPITALDISCHARGESTATUS"])
    after = None
    if died and row["HOSPITALDISCHARGEOFFSET"]:
        left = begin + timedelta(minutes=whole(row["HOSPITALDISCHARGEOFFSET"]))
        midnight = begin.replace(hour=0, minute=0)
        after = math.ceil((left - midnight) / timedelta(hours=1))
    outcome = {
        "died_in_hospital": died,
        "died_in_icu": {"Expired": 1, "Alive": 0}.get(row["UNITDISCHARGESTATUS"]),
        "died_after_hours": after,
        "unit": row["UNITTYPE"],
        "sex": row["GENDER"].lower(),
        "cohort": f"hospital-{row['HOSPITALID']}",
    }
    age = _age(row["AGE"], report)
    stay = Stay(pat_id, begin.date(), end.date(), age, outcome)
    return whole(row["PATIENTUNITSTAYID"]), IcuStay(pat_id, begin, end), stay


def _age(text: str, report: Report) -> float | None:
    if not text:
        return None
    return reported_age(ABOVE_89 if text.startswith(">") else float(text), report)


def _events(source: Path, report: Report) -> Iterator[tuple[int, int, str, str]]:
    """Yields the stay, the offset in minutes, `parameter/rank` and the value of each usable
    cell."""
    tables: dict[str, tuple[str, Callable[[Row], Iterator[tuple[str, str]]]]] = {
        "vitalPeriodic": ("OBSERVATIONOFFSET", partial(_of_columns, PERIODIC)),
        "vitalAperiodic": ("OBSERVATIONOFFSET", partial(_of_columns, APERIODIC)),
        "lab": ("LABRESULTOFFSET", _of_lab),
        "nurseCharting": ("NURSINGCHARTOFFSET", _of_chart),
    }
    present = [name for name in tables if find(source, name)]
    if not present:
        raise ImportFailure(f"{source}: none of the tables {', '.join(tables)} is here")
    left_out: Counter[str] = Counter()
    for name in present:
        offset, values = tables[name]
        for row in read(source, name):
            found = list(values(row))
            if not found:
                left_out[f"row of {name} without a value that is imported"] += 1
            for what, text in found:
                try:
                    number = float(text)
                    if not math.isfinite(number):
                        raise ValueError(text)
                    stay_id, minutes = whole(row["PATIENTUNITSTAYID"]), whole(row[offset])
                except ValueError:
                    left_out["value that is not a number"] += 1
                    continue
                yield stay_id, minutes, what, repr(number)
    report.notes += [f"no table {name}" for name in tables if name not in present]
    report.dropped.update(left_out)


def _of_columns(columns: Mapping[str, tuple[str, int]], row: Row) -> Iterator[tuple[str, str]]:
    for column, (parameter, rank) in columns.items():
        if text := row.get(column):
            yield f"{parameter}/{rank}", text


def _of_lab(row: Row) -> Iterator[tuple[str, str]]:
    name = LABS.get(row["LABNAME"])
    if name and row["LABRESULT"]:
        yield f"{canonical(name.lower())}/0", row["LABRESULT"]


def _of_chart(row: Row) -> Iterator[tuple[str, str]]:
    label, name = row["NURSINGCHARTCELLTYPEVALLABEL"], row["NURSINGCHARTCELLTYPEVALNAME"]
    if (found := CHARTED.get((label, name))) and row["NURSINGCHARTVALUE"]:
        yield f"{found[0]}/{found[1]}", row["NURSINGCHARTVALUE"]


def _readings(
    bucket: list[list[str]], stays: Mapping[int, IcuStay], report: Report
) -> Iterator[Reading]:
    events = []
    for number, minutes, what, text in bucket:
        parameter, _, digit = what.partition("/")
        events.append((int(number), int(minutes), parameter, int(digit), float(text)))
    events.sort(key=lambda event: event[:2])
    best: dict[tuple[int, int, str], int] = {}
    for stay_id, offset, parameter, rank, _ in events:
        minute = (stay_id, offset, parameter)
        best[minute] = min(rank, best.get(minute, rank))
    for stay_id, offset, parameter, rank, value in events:
        stay = stays.get(stay_id)
        if stay is None:
            report.dropped["value of a stay that is not imported"] += 1
            continue
        at = stay.begin + timedelta(minutes=offset)
        if not stay.begin - LEAD_IN <= at <= stay.end:
            report.dropped["value outside its stay"] += 1
        elif rank > best[stay_id, offset, parameter]:
            report.dropped[f"{parameter} in the same minute from a better source"] += 1
        else:
            if (parameter, rank) == FAHRENHEIT:
                report.converted["temperature in °F, written in °C"] += 1
                value = round((value - 32) / 1.8, 2)
            if parameter == "fio2" and value > 1:
                report.converted["FiO2 in percent, written as a fraction"] += 1
                value = round(value / 100, 4)
            # In the pipeline, a stay starts at midnight.
            at = max(at, stay.begin.replace(hour=0, minute=0))
            yield Reading(stay.pat_id, at.date(), 60 * at.hour + at.minute, parameter, value)
