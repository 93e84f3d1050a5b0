"""Merges the three CSVs into all_data.csv and the other derived files, unless these are current."""

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from hospital import ages, all_data, readings, stays
from hospital.ages import AGE_COLUMNS
from hospital.cells import Dates
from hospital.contents import Contents, InputError, examine
from hospital.csv_file import CsvFile
from hospital.files import DERIVED, create, unfinished
from hospital.patients import HEADER, Patients
from hospital.readings import SIGNAL_COLUMNS, read_readings
from hospital.rejected import Rejected
from hospital.stays import ADMISSION_COLUMNS, Stays, read_stays, warn_of_late_discharges
from hospital.synthetic_mark import is_synthetic

log = logging.getLogger(__name__)

# Version of the merge rules. If all_data.json has another version, hospital merges again.
VERSION = 2
COLUMNS = {
    "age.csv": (AGE_COLUMNS, ages.OPTIONAL_COLUMNS),
    "admission.csv": (ADMISSION_COLUMNS, stays.OPTIONAL_COLUMNS),
    "signal.csv": (SIGNAL_COLUMNS, readings.OPTIONAL_COLUMNS),
}


def prepare(patient_data: Path, folder: Path, date_format: str | None) -> bool:
    """Updates all_data.csv in `folder`; returns False if it was up to date.

    Raises InputError for invalid files and SettingError for an invalid DATE_FORMAT, each with a
    one-line message, and OSError if it cannot write.
    """
    Dates(date_format)  # checks the setting
    with _alone_in(folder):
        stamps = [_stamp(patient_data / name) for name in COLUMNS]
        contents = {name: examine(patient_data / name) for name in COLUMNS}
        digests = {name: one.sha256 for name, one in contents.items()}
        source = {
            "inputs": {n: {"size": c.size, "sha256": c.sha256} for n, c in contents.items()},
            "settings": {"DATE_FORMAT": date_format},
            "version": VERSION,
            "synthetic": is_synthetic(patient_data, digests),
        }
        if _up_to_date(folder, source):
            log.info("%s is up to date", folder / "all_data.csv")
            return False
        merged = _merge(patient_data, contents, folder, date_format)
        if [_stamp(patient_data / name) for name in COLUMNS] != stamps:
            raise InputError(f"a file in {patient_data} was changed while it was read; start again")
        _put_in_place(folder, source | merged)
        return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Lets only one merge at a time write to a folder; at the end, removes unfinished files,
    including those of a killed merge."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another merge is running; waiting for it", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            for name in DERIVED:
                unfinished(folder, name).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        examine(path)  # raises InputError with the reason
        raise
    return status.st_size, status.st_mtime_ns


def _up_to_date(folder: Path, source: dict[str, Any]) -> bool:
    try:
        index = json.loads((folder / "all_data.json").read_text(encoding="utf-8"))
        size = (folder / "all_data.csv").stat().st_size
        needed = ["rejected.csv"] + ["patients.csv"] * index["patients_are_numbered"]
        present = all((folder / name).exists() for name in needed)
        return bool(present and size == index["bytes"] and index.items() >= source.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _put_in_place(folder: Path, index: dict[str, Any]) -> None:
    # all_data.json marks all_data.csv as valid, so it is removed first and written last.
    with create(unfinished(folder, "all_data.json")) as file:
        file.write(json.dumps(index).encode())
    (folder / "all_data.json").unlink(missing_ok=True)
    for name in DERIVED:
        if unfinished(folder, name).exists():
            unfinished(folder, name).replace(folder / name)


def _merge(
    patient_data: Path, contents: dict[str, Contents], folder: Path, date_format: str | None
) -> dict[str, Any]:
    """Writes the unfinished rejected.csv, patients.csv and all_data.csv; returns their entries of
    all_data.json."""
    begun = time.monotonic()
    age, admission, signal = files = [
        CsvFile(patient_data / name, contents[name], *columns) for name, columns in COLUMNS.items()
    ]
    with TextIOWrapper(
        create(unfinished(folder, "rejected.csv")), encoding="utf-8", newline=""
    ) as stream:
        rejected = Rejected(stream)
        found, duplicates = read_stays(age, admission, date_format, rejected)
        measured, duplicates["signal.csv"] = read_readings(signal, found, date_format, rejected)
    for file in files:
        _summarize(file, rejected, duplicates[file.name])
    warn_of_late_discharges(found, measured.stay, measured.slot)
    _list_patients(folder, found.patients)
    with create(unfinished(folder, "all_data.csv")) as output:
        written = all_data.write(output, all_data.Messages(found, measured))
        output.flush()
        os.fsync(output.fileno())
    _log_total(folder, written, found, time.monotonic() - begun)
    counts = {f"{file}:{reason}": count for (file, reason), count in rejected.counts.items()}
    return written | {
        "stays": len(found),
        "patients_are_numbered": found.patients.are_numbered,
        "rejected": counts,
        "duplicates": {name: duplicates[name] for name in COLUMNS},
    }


def _list_patients(folder: Path, patients: Patients) -> None:
    """Writes patients.csv if the patients are numbered; otherwise removes an older one. Raises
    InputError instead of replacing a file that hospital did not write.
    """
    path = folder / "patients.csv"
    try:
        with path.open("rb") as file:
            ours = file.readline(100).decode("utf-8", "replace").strip() == ";".join(HEADER)
    except FileNotFoundError:
        ours = True
    except OSError:
        ours = False
    if patients.are_numbered:
        if not ours:
            raise InputError(
                f"{path} exists, but hospital did not write it; rename it, because hospital "
                "writes the patients' numbers to a file of this name"
            )
        with create(unfinished(folder, "patients.csv")) as output:
            patients.write(output)
    elif ours:
        path.unlink(missing_ok=True)


def _log_total(folder: Path, written: dict[str, Any], found: Stays, seconds: float) -> None:
    log.info(
        "%s: %d messages (%d readings, %d discharges, %d admissions) of %d stays in %.1f s",
        folder / "all_data.csv",
        *(written[name] for name in ("messages", "readings", "discharges", "admissions")),
        *(len(found), seconds),
    )


def _summarize(file: CsvFile, rejected: Rejected, duplicates: int) -> None:
    lost = rejected.of(file.name)
    log.info(
        "%s: %d rows: %d used, %d rejected, %d duplicates (%s, separator %r)",
        *(file.name, file.rows, file.rows - lost - duplicates, lost, duplicates),
        *(file.contents.encoding, file.separator),
    )
    for found, text, dropped in (
        (rejected.counts - rejected.dropped, "rejected", False),
        (rejected.dropped, "cells dropped (their rows are used)", True),
    ):
        for (name, reason), count in found.most_common():
            if name == file.name and count:
                first = rejected.first_line[name, reason, dropped]
                log.warning("%s: %d %s: %s (first in line %d)", name, count, text, reason, first)
