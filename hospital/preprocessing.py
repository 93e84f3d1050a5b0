"""Merge age.csv, admission.csv and signal.csv into all_data.csv, the stream in its order.

Three files are written into PATIENT_DATA, or into DERIVED_DATA if that is not writable:
all_data.csv (a line a message), all_data.json (what it was made of, and where to find its lines)
and rejected.csv (the rows not sent, with reasons). Nothing is done while they are up to date.
Their folder is printed on stdout; log lines go to stderr.
"""

import argparse
import fcntl
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hospital.cells import OPEN, Dates
from hospital.csv_file import Contents, CsvFile, InputError, Progress, examine
from hospital.logs import set_up_logging
from hospital.readings import SIGNAL_COLUMNS, SLOTS, Readings, read_readings
from hospital.rejected import Rejected
from hospital.settings import SettingError, Settings, writable_folder
from hospital.stays import ADMISSION_COLUMNS, AGE_COLUMNS, Stays, day_text, read_stays

log = logging.getLogger(__name__)

VERSION = 1  # of the rules of this merge: raise it to have every all_data.csv made anew
EVERY = 4096  # messages from one entry of the index to the next
HEADER = "type;pat_id;age;date_admission;date_discharge;day;hour;parameter;value\n"
INPUTS = {
    "age.csv": AGE_COLUMNS,
    "admission.csv": ADMISSION_COLUMNS,
    "signal.csv": SIGNAL_COLUMNS,
}
SETTINGS_HELP = """\
settings (environment):
  PATIENT_DATA   folder with age.csv, admission.csv and signal.csv (patient_data)
  DERIVED_DATA   where the files go if PATIENT_DATA is not writable (var/derived)
  DATE_FORMAT    dd/mm/YYYY or mm/dd/YYYY, for dates with the year last; unset: read as
                 dd/mm/YYYY, refused if a date shows otherwise. YYYY-mm-dd is always understood
  LOG_LEVEL      DEBUG, INFO, WARNING or ERROR (INFO)
"""


def prepare(patient_data: Path, folder: Path, date_format: str | None) -> bool:
    """Bring all_data.csv in `folder` up to date; False when it was already.

    Raises InputError or SettingError, each one line, when files or settings can't be used.
    """
    Dates(date_format)  # says at once if the setting is no good
    with _alone_in(folder):
        stamps = [_stamp(patient_data / name) for name in INPUTS]
        contents = {name: examine(patient_data / name) for name in INPUTS}
        source = {
            "inputs": {n: {"size": c.size, "sha256": c.sha256} for n, c in contents.items()},
            "settings": {"DATE_FORMAT": date_format},
            "version": VERSION,
        }
        if _up_to_date(folder, source):
            log.info("%s is up to date", folder / "all_data.csv")
            return False
        merged = _merge(patient_data, contents, folder, date_format)
        if [_stamp(patient_data / name) for name in INPUTS] != stamps:
            raise InputError(f"a file in {patient_data} was changed while it was read; start again")
        _put_in_place(folder, source | merged)
        return True


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two merges into one folder take turns; what a killed one left is removed."""
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
            for name in ("all_data.csv", "all_data.json", "rejected.csv"):
                _part(folder, name).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.part"


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def _up_to_date(folder: Path, source: dict[str, Any]) -> bool:
    try:
        index = json.loads((folder / "all_data.json").read_text(encoding="utf-8"))
        size = (folder / "all_data.csv").stat().st_size
        present = (folder / "rejected.csv").exists()
        return bool(present and size == index["bytes"] and index.items() >= source.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _put_in_place(folder: Path, index: dict[str, Any]) -> None:
    # all_data.json vouches for all_data.csv: gone first, back last.
    _part(folder, "all_data.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "all_data.json").unlink(missing_ok=True)
    for name in ("rejected.csv", "all_data.csv", "all_data.json"):
        _part(folder, name).replace(folder / name)


def _merge(
    patient_data: Path, contents: dict[str, Contents], folder: Path, date_format: str | None
) -> dict[str, Any]:
    """Write the merged stream and the rejected rows; returns their part of all_data.json."""
    begun = time.monotonic()
    ages, admissions, signal = (
        CsvFile(patient_data / name, contents[name], columns) for name, columns in INPUTS.items()
    )
    with _part(folder, "rejected.csv").open("w", encoding="utf-8", newline="") as stream:
        rejected = Rejected(stream)
        stays, duplicates = read_stays(ages, admissions, date_format, rejected)
        readings, duplicates["signal.csv"] = read_readings(signal, stays, date_format, rejected)
    for file in (ages, admissions, signal):
        _summarize(file, rejected, duplicates[file.name])
    written = _write(_part(folder, "all_data.csv"), stays, readings)
    log.info(
        "%s: %d messages (%d readings, %d discharges) of %d stays in %.1f s",
        *(folder / "all_data.csv", written["messages"], written["readings"]),
        *(written["discharges"], len(stays), time.monotonic() - begun),
    )
    counts = {f"{file}:{reason}": count for (file, reason), count in rejected.counts.items()}
    return written | {"stays": len(stays), "rejected": counts, "duplicates": duplicates}


def _summarize(file: CsvFile, rejected: Rejected, duplicates: int) -> None:
    refused = rejected.of(file.name)
    log.info(
        "%s: %d rows: %d used, %d rejected, %d exact duplicates (%s, separator %r)",
        *(file.name, file.rows, file.rows - refused - duplicates, refused, duplicates),
        *(file.contents.encoding, file.separator),
    )
    for (name, reason), count in rejected.counts.most_common():
        if name == file.name:
            first = rejected.first_line[name, reason]
            log.warning("%s: %d rejected: %s (first in line %d)", name, count, reason, first)


def _write(path: Path, stays: Stays, readings: Readings) -> dict[str, Any]:
    """Write the stream in order. A discharge is told at the end of its day, as if at hour 24."""
    count, discharged = len(readings.stay), np.flatnonzero(stays.discharge != OPEN)
    slot = np.append(readings.slot, stays.discharge[discharged] * SLOTS + 24).astype(np.int32)
    log.info("all_data.csv: ordering %d messages", len(slot))
    order = np.argsort(slot, kind="stable")
    stay_texts = [
        f"{pat_id};{repr(age) if age == age else ''};{day_text(admission)};{day_text(discharge)};"
        for pat_id, age, admission, discharge in zip(
            stays.pat_id.tolist(),
            stays.age.tolist(),
            stays.admission.tolist(),
            stays.discharge.tolist(),
            strict=True,
        )
    ]
    heads = [f"reading;{text}" for text in stay_texts] + [
        f"discharge;{text}" for text in stay_texts
    ]
    head = np.append(readings.stay, discharged + len(stays)).astype(np.int32)
    names = [f"{name};" for name in (*readings.names, "")]
    name = np.append(readings.parameter, np.full(len(discharged), len(names) - 1)).astype(np.int32)
    value = np.append(readings.value, np.full(len(discharged), np.nan))
    times = _Times()
    offsets: list[tuple[int, int, int]] = []
    digest = hashlib.sha256(HEADER.encode())
    position, told = len(HEADER), 0
    progress = Progress("all_data.csv: writing")
    with path.open("wb") as file:
        file.write(HEADER.encode())
        for start in range(0, len(order), EVERY):
            offsets.append((position, start, told))
            rows = order[start : start + EVERY]
            codes, distinct = pd.factorize(value[rows])
            values = [*map(repr, distinct.tolist()), ""]  # a discharge's NaN has code -1, the last
            lines = "".join(
                [
                    f"{heads[h]}{times[t]}{names[n]}{values[v]}\n"
                    for h, t, n, v in zip(
                        head[rows].tolist(),
                        slot[rows].tolist(),
                        name[rows].tolist(),
                        codes.tolist(),
                        strict=True,
                    )
                ]
            ).encode()
            file.write(lines)
            digest.update(lines)
            position += len(lines)
            told += int((rows < count).sum())
            progress.at(start, len(order))
        file.flush()
        os.fsync(file.fileno())
    return {
        "sha256": digest.hexdigest(),
        "bytes": position,
        "messages": len(order),
        "readings": count,
        "discharges": len(discharged),
        "every": EVERY,
        "offsets": offsets,
    }


class _Times(dict[int, str]):
    """`day;hour;` of each slot; the hour of a discharge is empty."""

    def __missing__(self, slot: int) -> str:
        day, hour = divmod(slot, SLOTS)
        self[slot] = text = f"{day_text(day)};{hour if hour < 24 else ''};"
        return text


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hospital.preprocessing",
        description=__doc__,
        epilog=SETTINGS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        settings = Settings.from_environment(os.environ)
        set_up_logging(settings)
        folder = writable_folder(settings.patient_data, settings.derived_data)
        prepare(settings.patient_data, folder, settings.date_format)
    except (InputError, SettingError) as error:
        print(f"hospital: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"hospital: cannot write the merged data: {error}", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
