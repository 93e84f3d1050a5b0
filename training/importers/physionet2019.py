"""Imports the PhysioNet/Computing in Cardiology Challenge 2019: hourly records with the onset of
sepsis.

Source: one `p<number>.psv` per stay (columns separated by `|`, one row per hour, NaN for missing)
in folders or archives named training_setA, training_setB. SepsisLabel becomes 1 six hours before
the onset. https://doi.org/10.13026/v64v-d857 (Reyna et al.)
"""

import csv
import math
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

#: O2Sat is measured by pulse oximetry, so it becomes spo2; the saturation of arterial blood samples
#: keeps its own name.
NAMES = {"SaO2": "sao2", "ICULOS": "icu_hours"}
_SEXES: dict[float | None, str] = {0.0: "female", 1.0: "male"}
#: Columns that describe the stay or its label and are not readings.
_DESCRIPTION = {"Age", "Unit1", "Unit2", "HospAdmTime", "SepsisLabel"}
_LABEL_LEAD_HOURS = 6


def records(source: Path, report: Report) -> Iterator[Stay | Reading]:
    """Yields each stay, then its readings in order of time."""
    report.notes += [
        "the source has no dates: admission days are invented (a day of 2019 by patient number)",
        "the hour of a reading is the hour of the stay (hour 0 = ICULOS 1)",
        "icu_hours is ICULOS, so that each hour of the record has a reading",
        "sepsis_after_hours is the onset, counted from hour 0: six hours after the first label",
    ]
    for name, text in members(source, ".psv"):
        if not name.stem[1:].isdigit():
            raise ImportFailure(f"{name}: not named p<number>.psv")
        yield from _stay(name, text, report)


def _stay(path: PurePosixPath, text: str, report: Report) -> Iterator[Stay | Reading]:
    pat_id = int(path.stem[1:])
    rows = list(csv.DictReader(text.splitlines(), delimiter="|"))
    if not rows or "ICULOS" not in rows[0] or "SepsisLabel" not in rows[0]:
        raise ImportFailure(f"{path}: no rows with the columns ICULOS and SepsisLabel")
    admission = invented_admission(pat_id)
    hours = [int(float(row["ICULOS"])) - 1 for row in rows]
    labelled = [hour for hour, row in zip(hours, rows, strict=True) if _number(row, "SepsisLabel")]
    if labelled and labelled[0] == hours[0]:
        report.converted[
            "label set from the first row on: the onset is at most six hours later"
        ] += 1
    age = _number(rows[0], "Age")
    yield Stay(
        pat_id,
        admission,
        admission + timedelta(days=max(hours) // 24),
        None if age is None else reported_age(age, report),
        {
            "sepsis": int(bool(labelled)),
            "sepsis_after_hours": labelled[0] + _LABEL_LEAD_HOURS if labelled else None,
            "unit": _unit(rows[0]),
            "sex": _SEXES.get(_number(rows[0], "Gender"), "unknown"),
            "cohort": path.parent.name,
        },
    )
    for hour, row in zip(hours, rows, strict=True):
        day = admission + timedelta(days=hour // 24)
        for column in row:
            # Gender does not change, so it is written once.
            if column in _DESCRIPTION or (column == "Gender" and hour != hours[0]):
                continue
            value = _number(row, column)
            if value is None:
                report.dropped["NaN, which means missing in the source"] += 1
            else:
                parameter = NAMES.get(column) or canonical(column.lower())
                yield Reading(pat_id, day, hour % 24 * 60, parameter, value)


def _number(row: Mapping[str, str], column: str) -> float | None:
    value = float(row.get(column) or math.nan)
    return None if math.isnan(value) else value


def _unit(row: Mapping[str, str]) -> str:
    if _number(row, "Unit1"):
        return "medical"
    return "surgical" if _number(row, "Unit2") else "unknown"
