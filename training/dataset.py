"""From the pipeline's CSVs or database, and outcome.csv, to rows of features with labels.

The readings are those of the stream, in its order: the CSVs go through hospital's merge and
tool's table of plausible values, so that training sees what a model in service will see. The
database has been through both.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modelapi.rounding import significant
from tool.features import Feature
from tool.plausible import RANGES
from training import database
from training.config import Data, Label, Split
from training.database import KEY, DatabaseFailure, Stored
from training.features import bulk_features

HOUR = pd.Timedelta(hours=1)
#: A feature that fewer stays of the training set ever have cannot be learned from. (And
#: HistGradientBoosting of scikit-learn 1.9.1 crashes on a column without any value.)
FEWEST_STAYS = 50


class DataError(Exception):
    """The data cannot be trained on; the message is one line."""


@dataclass(frozen=True)
class Stream:
    """readings: seq, pat_id, date_admission, measured_at, parameter, value, in stream order.

    ages: years by (pat_id, date_admission). left_out: readings not used, by reason. digest: of
    the data and outcomes; source: where they were read from, in words.
    """

    readings: pd.DataFrame
    ages: "pd.Series[float]"
    left_out: dict[str, int]
    digest: str
    source: str = ""


@dataclass(frozen=True)
class Rows:
    """Rows of one model's features and what each is to be judged by, in step.

    x: shape (rows, features), rounded as in service, NaN where missing.
    about: pat_id, date_admission, hour (of sample_hours; 0 for a reading that is not a sample),
        age, and the columns of outcome.csv.
    """

    x: NDArray[np.float64]
    y: NDArray[np.int64]
    about: pd.DataFrame

    def where(self, chosen: Any) -> "Rows":
        """The chosen rows."""
        flags = np.asarray(chosen, dtype=bool)
        return Rows(self.x[flags], self.y[flags], self.about[flags])

    def at(self, hour: int) -> "Rows":
        """The rows of one sample hour."""
        return self.where(self.about["hour"] == hour)

    @property
    def patients(self) -> NDArray[np.int64]:
        numbers: NDArray[np.int64] = self.about["pat_id"].to_numpy(np.int64)
        return numbers


def read_stream(data: Data) -> Stream:
    """The readings of the folder's CSVs or of the database, less what tool would reject.

    Raises DataError, with hospital's or the database's own words when it cannot be read.
    """
    if data.database is None:
        readings, ages, digest = _merge(data.folder)
        left_out, source = {}, "three CSVs, merged as for the stream"
    else:
        try:
            stored = database.read(data.database, data.stream)
        except DatabaseFailure as error:
            raise DataError(str(error)) from None
        source = f"stream {stored.stream}, as stored by the pipeline"
        readings, ages, digest = stored.readings, stored.ages, _digest(stored)
        left_out = {"message that tool rejected": stored.rejected} if stored.rejected else {}
    for parameter, (above, up_to, unit) in RANGES.items():
        value = readings["value"]
        wrong = (readings["parameter"] == parameter) & ~((value > above) & (value <= up_to))
        if wrong.any():
            left_out[f"{parameter} not within {above:g} to {up_to:g} {unit}"] = int(wrong.sum())
            readings = readings[~wrong]
    if data.parameters:
        wanted = readings["parameter"].isin(data.parameters)
        if not wanted.all():
            unseen = "reading of a parameter that the model does not see"
            left_out[unseen] = int((~wanted).sum())
            readings = readings[wanted]
    if readings.empty:
        raise DataError(
            f"{data.database or data.folder}: no reading of {', '.join(data.parameters) or 'any'}"
        )
    outcomes = data.folder / "outcome.csv"
    try:
        digest.update(outcomes.read_bytes())
    except OSError as error:
        raise DataError(f"{outcomes}: {error.strerror}") from None
    return Stream(readings.reset_index(drop=True), ages, left_out, digest.hexdigest(), source)


def _merge(folder: Path) -> "tuple[pd.DataFrame, pd.Series[float], Any]":
    """Readings, ages and digest of the CSVs, merged by hospital as it does for its stream."""
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
    messages = pd.read_csv(
        path,
        sep=";",
        usecols=["type", *KEY, "age", "day", "hour", "parameter", "value"],
        dtype={"type": "category", "parameter": "category", "day": "category"},
        keep_default_na=False,
        na_values={"age": "", "hour": "", "value": ""},
    )
    messages["seq"] = np.arange(1, len(messages) + 1)
    days = messages["day"].cat.categories
    midnight = pd.to_datetime(days).to_numpy("datetime64[s]")[messages["day"].cat.codes]
    messages["measured_at"] = midnight + messages["hour"].fillna(0).to_numpy("timedelta64[h]")
    messages["date_admission"] = pd.to_datetime(messages["date_admission"]).dt.as_unit("s")
    ages = messages.groupby(KEY)["age"].first()
    readings = messages[messages["type"] == "reading"].drop(columns=["type", "age", "day", "hour"])
    with path.open("rb") as file:
        return readings, ages, hashlib.file_digest(file, "sha256")


def _digest(stored: Stored) -> Any:
    """SHA-256 of what was read from a database, the same wherever and in what parts it lay."""
    digest = hashlib.sha256()
    names = stored.readings["parameter"].cat
    digest.update("\n".join(names.categories).encode())
    digest.update(names.codes.to_numpy(np.int32).tobytes())
    stays = stored.ages.index.to_frame()
    columns = [stays["pat_id"], stays["date_admission"], stored.ages]
    columns += [stored.readings[name] for name in ("seq", *KEY, "measured_at", "value")]
    for column in columns:
        digest.update(column.to_numpy().tobytes())
    return digest


def read_outcomes(data: Data, label: Label) -> pd.DataFrame:
    """outcome.csv by (pat_id, date_admission); raises DataError when a column is missing."""
    path = data.folder / "outcome.csv"
    try:
        outcomes = pd.read_csv(path, sep=";", parse_dates=["date_admission"])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    for column in (label.column, label.after_column):
        if column is not None and column not in outcomes:
            raise DataError(f"{path}: no column {column}")
    known = outcomes[label.column].isin([0, 1])
    outcomes["date_admission"] = outcomes["date_admission"].dt.as_unit("s")
    return outcomes[known].set_index(KEY)


def sample(stream: Stream, hours: tuple[int, ...], more: tuple[int, ...] = ()) -> "pd.Series[int]":
    """The sample hour of each reading that is a row, by the reading's index label.

    For each hour, a stay's last reading since the hour before in the list. A stay without
    a reading in between has no row: it may be over. `more`: hours sampled in the same way for
    themselves; a reading that is a row already is not another one.
    """
    rows = _last_before(stream, hours)
    if more:
        others = _last_before(stream, more)
        rows = pd.concat([rows, others[~others.index.isin(rows.index)]]).sort_index()
    return rows


def _last_before(stream: Stream, hours: tuple[int, ...]) -> "pd.Series[int]":
    hour = np.array(hours)
    passed = elapsed_hours(stream)
    which = np.searchsorted(hour, passed.to_numpy(), side="right")
    within = which < len(hour)
    table = stream.readings.loc[within, KEY].assign(hour=hour[which[within]])
    last: pd.Series[int] = table[~table.duplicated([*KEY, "hour"], keep="last")]["hour"]
    return last


def elapsed_hours(stream: Stream) -> "pd.Series[float]":
    """Hours from the first reading of its stay to each reading."""
    measured = stream.readings["measured_at"]
    first = measured.groupby([stream.readings[key] for key in KEY]).transform("min")
    passed: pd.Series[float] = (measured - first) / HOUR
    return passed


def assemble(
    stream: Stream,
    outcomes: pd.DataFrame,
    label: Label,
    features: list[Feature],
    hours: "pd.Series[int]",
) -> Rows:
    """Features and labels of the readings in `hours`, as `sample` gives them.

    Left out: readings of stays without a known outcome, and, with a horizon, those after the
    event.
    """
    keys = pd.MultiIndex.from_frame(stream.readings.loc[hours.index, KEY])
    hours = hours[keys.isin(outcomes.index)]
    chosen = stream.readings.loc[hours.index]
    about = chosen[KEY].join(outcomes, on=KEY).join(stream.ages.rename("age"), on=KEY)
    about["hour"] = hours
    y = about[label.column]
    if label.after_column is not None and label.within_hours is not None:
        at = (chosen["measured_at"] - chosen["date_admission"]) / HOUR
        ahead = about[label.after_column] - at
        y = ((y == 1) & (ahead <= label.within_hours)).astype(int)
        before = ~(ahead <= 0)
        about, y, hours = about[before], y[before], hours[before]
    flags = np.zeros(len(stream.readings), dtype=bool)
    flags[stream.readings.index.get_indexer(hours.index)] = True
    matrix = bulk_features(stream.readings, stream.ages, features, flags)
    x = significant(matrix.loc[hours.index].to_numpy(np.float64))
    return Rows(x, y.to_numpy(np.int64), about)


def split(rows: Rows, how: Split) -> tuple[Rows, Rows]:
    """Rows to train and to test on: other patients, and later stays or another cohort.

    Raises DataError when either side would lack an outcome.
    """
    if how.by == "cohort":
        if "cohort" not in rows.about:
            raise DataError("split by cohort: outcome.csv has no column cohort")
        cohort = rows.about["cohort"].astype(str)
        train, test = cohort.isin(how.train), cohort.isin(how.test)
    else:
        stays = rows.about.drop_duplicates(KEY)["date_admission"]
        test = rows.about["date_admission"] > stays.quantile(1 - how.test_share)
        train = ~test
    seen = rows.about.loc[train, "pat_id"].unique()
    test &= ~rows.about["pat_id"].isin(seen)
    parts = rows.where(train), rows.where(test)
    for name, part in zip(("train", "test"), parts, strict=True):
        if len(np.unique(part.y)) < 2:
            raise DataError(f"split: the {name} rows do not hold both outcomes")
    return parts


def usable(rows: Rows, features: list[Feature]) -> tuple[list[Feature], list[Feature]]:
    """Features that enough stays of `rows` have and that differ between rows, and the others."""
    stays = rows.about.groupby(KEY, sort=False).ngroup().to_numpy()
    kept: list[Feature] = []
    dropped: list[Feature] = []
    for column, feature in zip(rows.x.T, features, strict=True):
        known = ~np.isnan(column)
        enough = len(np.unique(stays[known])) >= FEWEST_STAYS
        varied = enough and np.ptp(column[known]) > 0
        (kept if varied else dropped).append(feature)
    return kept, dropped


def select(rows: Rows, features: list[Feature], kept: list[Feature]) -> Rows:
    """`rows` with the columns of the kept features only."""
    place = {feature.name: number for number, feature in enumerate(features)}
    return Rows(rows.x[:, [place[feature.name] for feature in kept]], rows.y, rows.about)
