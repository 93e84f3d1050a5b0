"""MIMIC-III and MIMIC-IV: ICU stays of the Beth Israel Deaconess Medical Center.

Source: a folder that holds, at any depth, as .csv or .csv.gz, ICUSTAYS, PATIENTS,
CHARTEVENTS and D_ITEMS (MIMIC-IV: the same names in lower case); ADMISSIONS if there
is one, for deaths in the hospital. https://mimic.mit.edu (Johnson et al.)
"""

import csv
import gzip
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from training.importers.records import ImportFailure, Reading, Report, Stay, reported_age

#: Parameter -> itemids, as mimic-code's concepts group them (vitals_first_day, vitalsign). Six
#: digits: MetaVision (MIMIC-IV and a part of III); fewer: CareVue (III). Of several sources in
#: the same minute the first named counts: arterial line, second arterial line, cuff; the rate
#: that was observed before the one that the ventilator tells.
SOURCES: dict[str, tuple[tuple[int, ...], ...]] = {
    "blood_pressure": ((220050, 51), (225309, 6701), (220179, 455, 442)),
    "respiration_rate": ((220210, 618), (224690, 615)),
    "temperature": ((223761, 223762, 678, 676),),
    "heart_rate": ((220045, 211),),
    "spo2": ((220277, 646),),
}
#: itemid -> parameter, and its source's place there.
ITEMS = {
    item: (parameter, place)
    for parameter, sources in SOURCES.items()
    for place, items in enumerate(sources)
    for item in items
}
_FAHRENHEIT = {223761, 678}
#: Events are laid into this many temporary files by stay, and each is sorted in
#: memory: MIMIC-IV's 40 million events of the items above make some 10 MB a file.
_BUCKETS = 128

Row = Mapping[str, str]


class IcuStay(NamedTuple):
    """A row of ICUSTAYS, as far as events are placed by it."""

    pat_id: int
    begin: datetime
    end: datetime | None


def records(source: Path, report: Report) -> Iterator[Stay | Reading]:
    """Yield every stay, then the readings stay by stay, each in order of time.

    CHARTEVENTS may come in any order; it is read once, as a stream.
    """
    report.notes += [
        "pat_id is subject_id; a stay is one in an ICU, and its discharge the one from there",
        "dates are as in the source: moved into the future, each patient's by its own amount",
    ]
    stays: dict[int, IcuStay] = {}
    for stay_id, stay, row in _stays(source, report):
        stays[stay_id] = stay
        yield row
    _tell_items(source, report)
    with tempfile.TemporaryDirectory() as folder:
        buckets = _sort_into_buckets(source, Path(folder), report)
        for bucket in buckets:
            yield from _readings(bucket, stays, report)


def _stays(source: Path, report: Report) -> Iterator[tuple[int, IcuStay, Stay]]:
    patients = {row["SUBJECT_ID"]: row for row in _table(source, "PATIENTS")}
    admissions: dict[str, Row] | None = None
    if _find(source, "ADMISSIONS"):
        admissions = {row["HADM_ID"]: row for row in _table(source, "ADMISSIONS")}
    else:
        report.notes.append("no ADMISSIONS table: died_in_hospital is empty")
    seen: set[tuple[int, object]] = set()
    for row in _table(source, "ICUSTAYS"):
        if not row["INTIME"] or row["SUBJECT_ID"] not in patients:
            report.dropped["stay without a beginning or without its patient"] += 1
            continue
        pat_id, begin = int(row["SUBJECT_ID"]), _time(row["INTIME"])
        if (pat_id, begin.date()) in seen:
            report.dropped["second stay of a patient that began on the same day"] += 1
            continue
        seen.add((pat_id, begin.date()))
        end = _time(row["OUTTIME"]) if row["OUTTIME"] else None
        patient = patients[row["SUBJECT_ID"]]
        admission = admissions.get(row["HADM_ID"], {}) if admissions else {}
        died = _death(patient, admission)
        yield (
            int(row.get("STAY_ID") or row["ICUSTAY_ID"]),
            IcuStay(pat_id, begin, end),
            Stay(
                pat_id,
                begin.date(),
                end.date() if end else None,
                reported_age(_age(patient, begin), report),
                {
                    "died_in_hospital": admission.get("HOSPITAL_EXPIRE_FLAG"),
                    "died_in_icu": int(bool(died and end and died.date() <= end.date())),
                    "died_after_hours": died and _hours(begin, died),
                    "unit": row["FIRST_CAREUNIT"],
                    "cohort": row.get("DBSOURCE") or patient["ANCHOR_YEAR_GROUP"],
                },
            ),
        )


def _death(patient: Row, admission: Row) -> datetime | None:
    """When the patient died: to the minute in the hospital, elsewhere told as the day's end."""
    if admission.get("DEATHTIME"):
        return _time(admission["DEATHTIME"])
    if not patient["DOD"]:
        return None
    return _time(patient["DOD"]).replace(hour=23, minute=59)


def _hours(begin: datetime, end: datetime) -> int:
    """Hours from the midnight that began the day of admission, as the pipeline counts them."""
    return math.ceil((end - begin.replace(hour=0, minute=0)) / timedelta(hours=1))


def _age(patient: Row, at: datetime) -> float:
    """Years at `at`: by birth in MIMIC-III, by the anchor year in MIMIC-IV."""
    if "DOB" in patient:
        born = _time(patient["DOB"])
        return float(at.year - born.year - ((at.month, at.day) < (born.month, born.day)))
    return float(int(patient["ANCHOR_AGE"]) + at.year - int(patient["ANCHOR_YEAR"]))


def _tell_items(source: Path, report: Report) -> None:
    """Report what D_ITEMS calls the items, so that a reader can check them."""
    labels = {row["ITEMID"]: row["LABEL"] for row in _table(source, "D_ITEMS")}
    for item, (parameter, _) in ITEMS.items():
        if str(item) in labels:
            report.notes.append(f"itemid {item} ({labels[str(item)]}) is read as {parameter}")


def _sort_into_buckets(source: Path, folder: Path, report: Report) -> list[Path]:
    """Lay the usable events into files by stay: `stay_id,time,itemid,value` lines."""
    paths = [folder / f"{number:03}" for number in range(_BUCKETS)]
    with ExitStack() as files:
        buckets = [
            csv.writer(files.enter_context(path.open("w", encoding="utf-8", newline="")))
            for path in paths
        ]
        left_out: Counter[str] = Counter()
        for row in _table(source, "CHARTEVENTS"):
            stay_id = row.get("STAY_ID") or row.get("ICUSTAY_ID")
            if int(row["ITEMID"]) not in ITEMS:
                left_out["event of an item that is not imported"] += 1
            elif row.get("ERROR") == "1":
                left_out["event that the source marks as an error"] += 1
            elif not row["VALUENUM"] or not math.isfinite(float(row["VALUENUM"])):
                left_out["event without a number"] += 1
            elif not stay_id:
                left_out["event without a stay"] += 1
            else:
                bucket = buckets[int(stay_id) % _BUCKETS]
                bucket.writerow([stay_id, row["CHARTTIME"], row["ITEMID"], row["VALUENUM"]])
    report.dropped.update(left_out)
    return paths


def _readings(
    bucket: Path, stays: Mapping[int, IcuStay], report: Report
) -> Iterator[Stay | Reading]:
    with bucket.open(encoding="utf-8", newline="") as lines:
        events = [
            (int(stay_id), _time(at), int(item), float(value))
            for stay_id, at, item, value in csv.reader(lines)
        ]
    events.sort(key=lambda event: event[:2])
    best: dict[tuple[int, datetime, str], int] = {}
    for stay_id, at, item, _ in events:
        parameter, place = ITEMS[item]
        minute = (stay_id, at, parameter)
        best[minute] = min(place, best.get(minute, place))
    for stay_id, at, item, value in events:
        stay = stays.get(stay_id)
        parameter, place = ITEMS[item]
        if stay is None:
            report.dropped["event of a stay that is not imported"] += 1
        elif at < stay.begin or (stay.end is not None and at > stay.end):
            report.dropped["event outside its stay"] += 1
        elif place > best[stay_id, at, parameter]:
            report.dropped[f"{parameter} in the same minute from a better source"] += 1
        else:
            if item in _FAHRENHEIT:
                report.converted["temperature in °F, written in °C"] += 1
                value = round((value - 32) / 1.8, 2)
            yield Reading(stay.pat_id, at.date(), 60 * at.hour + at.minute, parameter, value)


def _table(source: Path, name: str) -> Iterator[Row]:
    """Yield a table's rows, columns named in upper case as in MIMIC-III."""
    path = _find(source, name)
    if path is None:
        raise ImportFailure(f"{source}: no {name}.csv or {name}.csv.gz here")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        header = [column.upper() for column in next(rows, [])]
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise ImportFailure(
                    f"{path} line {number}: {len(row)} columns, the header has {len(header)}"
                )
            yield dict(zip(header, row, strict=True))


def _find(source: Path, name: str) -> Path | None:
    wanted = {f"{name}.csv".casefold(), f"{name}.csv.gz".casefold()}
    found = sorted(path for path in source.rglob("*") if path.name.casefold() in wanted)
    return found[0] if found else None


def _time(text: str) -> datetime:
    # Whole minutes: what the pipeline keeps, and what makes two pressures simultaneous.
    return datetime.fromisoformat(text).replace(second=0, microsecond=0)
