"""Reads the readings for training, in the order of the stream.

The CSVs go through hospital's merge and the pipeline's plausible ranges, so that training uses the
same data as a model in service. The readings in a database have already gone through both.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hospital.patients import Patients
from training import database
from training.config import Data
from training.database import KEY, DatabaseFailure, Stored
from training.errors import TrainingError
from wire.vitals import VITALS

HOUR = pd.Timedelta(hours=1)


class DataError(TrainingError):
    """The data are invalid; the message is one line."""


@dataclass(frozen=True)
class Stream:
    """The data of a stream. readings: seq, pat_id, date_admission, measured_at, parameter, value,
    in the order of the stream. ages: years by (pat_id, date_admission). left_out: the number of
    unused readings, by reason. digest: SHA-256 of the readings. source: where the readings come
    from, in words. identifiers: the pat_id of each identifier, if the source has identifiers.
    """

    readings: pd.DataFrame
    ages: "pd.Series[float]"
    left_out: dict[str, int]
    digest: str
    source: str = ""
    identifiers: dict[str, int] = field(default_factory=dict)

    @property
    def elapsed_hours(self) -> "pd.Series[float]":
        """For each reading, the hours since the first reading of its stay."""
        measured = self.readings["measured_at"]
        first = measured.groupby([self.readings[key] for key in KEY]).transform("min")
        passed: pd.Series[float] = (measured - first) / HOUR
        return passed


def read(data: Data) -> Stream:
    """Reads the folder's CSVs or the database, without implausible values. Raises DataError if
    hospital or the database fails, or if no reading is left.
    """
    identifiers: dict[str, int] = {}
    left_out: dict[str, int] = {}
    if data.database is None:
        readings, ages, digest, identifiers = _merge(data.folder)
        source = "three CSVs, merged as for the stream"
    else:
        try:
            stored = database.read(data.database, data.stream)
        except DatabaseFailure as error:
            raise DataError(str(error)) from None
        source = f"stream {stored.stream}, as stored by the pipeline"
        readings, ages, identifiers = stored.readings, stored.ages, stored.identifiers
        digest = _digest(stored)
        if stored.rejected:
            left_out["rejected message"] = stored.rejected
    readings = _plausible(readings, left_out)
    if data.parameters:
        wanted = readings["parameter"].isin(data.parameters)
        if not wanted.all():
            left_out["reading of a parameter that the model does not use"] = int((~wanted).sum())
            readings = readings[wanted]
    if readings.empty:
        wanted_names = f" of {', '.join(data.parameters)}" if data.parameters else ""
        raise DataError(f"{data.database or data.folder}: no reading{wanted_names}")
    return Stream(readings.reset_index(drop=True), ages, left_out, digest, source, identifiers)


def _plausible(readings: pd.DataFrame, left_out: dict[str, int]) -> pd.DataFrame:
    """The readings within the plausible ranges that the tool uses; counts the others."""
    value, parameter = readings["value"], readings["parameter"]
    keep = np.ones(len(readings), dtype=bool)
    for name in parameter.cat.categories:
        vital = VITALS.get(name)
        if vital is None or vital.plausible is None:
            continue
        above, up_to = vital.plausible
        wrong = ((parameter == name) & ~((value > above) & (value <= up_to))).to_numpy()
        if wrong.any():
            reason = f"{name} not between {above:g} (excluded) and {up_to:g} {vital.unit}".rstrip()
            left_out[reason] = int(wrong.sum())
            keep &= ~wrong
    return readings[keep]


def _merge(folder: Path) -> "tuple[pd.DataFrame, pd.Series[float], str, dict[str, int]]":
    """The readings, ages, digest and identifiers of the CSVs, which are merged as for the
    stream."""
    merge = subprocess.run(
        [sys.executable, "-m", "hospital.preprocessing"],
        env={**os.environ, "PATIENT_DATA": str(folder), "LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        check=False,
    )
    if merge.returncode:
        raise DataError(f"{folder}: {merge.stderr.strip().splitlines()[-1]}")
    path = Path(merge.stdout.strip()) / "all_data.csv"
    clock = ("hour", "minute", "second")
    wanted = {"type", *KEY, "age", "day", *clock, "parameter", "value"}
    messages = pd.read_csv(
        path,
        sep=";",
        usecols=wanted.__contains__,
        dtype={"type": "category", "parameter": "category", "day": "category"},
        keep_default_na=False,
        na_values=dict.fromkeys(("age", "value", *clock), ""),
    )
    messages["seq"] = np.arange(1, len(messages) + 1)
    days = messages["day"].cat.categories
    at = pd.to_datetime(days).to_numpy("datetime64[s]")[messages["day"].cat.codes]
    for unit in clock:
        if unit in messages:
            at = at + messages[unit].fillna(0).to_numpy(f"timedelta64[{unit[0]}]")
    messages["measured_at"] = at
    messages["date_admission"] = pd.to_datetime(messages["date_admission"]).dt.as_unit("s")
    ages = messages.groupby(KEY)["age"].first()
    columns = ["pat_id", "date_admission", "parameter", "value", "seq", "measured_at"]
    readings = messages.loc[messages["type"] == "reading", columns]
    patients = path.with_name("patients.csv")
    numbered = json.loads(path.with_suffix(".json").read_text())["patients_are_numbered"]
    identifiers = Patients.read(patients).numbers if numbered else {}
    with path.open("rb") as file:
        return readings, ages, hashlib.file_digest(file, "sha256").hexdigest(), identifiers


def _digest(stored: Stored) -> str:
    """SHA-256 of a stream in a database; it is the same for every kind of database."""
    digest = hashlib.sha256()
    names: Any = stored.readings["parameter"].cat
    digest.update("\n".join(names.categories).encode())
    digest.update(names.codes.to_numpy(np.int32).tobytes())
    stays = stored.ages.index.to_frame()
    columns = [stays["pat_id"], stays["date_admission"], stored.ages]
    columns += [stored.readings[name] for name in ("seq", *KEY, "measured_at", "value")]
    for column in columns:
        digest.update(column.to_numpy().tobytes())
    return digest.hexdigest()
