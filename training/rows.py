"""Rows to train and test on. A row has the features of a stay at one moment, and the stay's
outcome."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modelapi.rounding import significant
from training.arrays import Floats, Integers
from training.config import Label, Split
from training.database import KEY
from training.features import bulk_features
from training.stream import HOUR, DataError, Stream
from wire.features import Feature

#: A feature is not used if fewer stays of the training set than this have it. (HistGradientBoosting
#: of scikit-learn 1.9.1 crashes on a column without any value.)
FEWEST_STAYS = 50


@dataclass(frozen=True)
class Rows:
    """Rows of one model's features with their labels.

    x: shape (rows, features), rounded as in service, NaN if missing. about: pat_id, date_admission,
    hour (of sample_hours; 0 for a reading that is not a sample), age, the columns of outcome.csv,
    and, if the label has `within_hours`, `ahead`: the hours to the event.
    """

    x: Floats
    y: Integers
    about: pd.DataFrame

    def where(self, chosen: Any) -> "Rows":
        """The rows whose flag is set."""
        flags = np.asarray(chosen, dtype=bool)
        return Rows(self.x[flags], self.y[flags], self.about[flags])

    def at(self, hour: int) -> "Rows":
        """The rows of one sample hour."""
        return self.where(self.about["hour"] == hour)

    @property
    def patients(self) -> Integers:
        numbers: Integers = self.about["pat_id"].to_numpy(np.int64)
        return numbers

    @property
    def hours_since_last(self) -> Floats:
        """For each row, the hours from the previous sample hour to its own."""
        hours, which = np.unique(self.about["hour"].to_numpy(np.float64), return_inverse=True)
        since: Floats = np.diff(hours, prepend=0.0)[which]
        return since


def sample(
    stream: Stream,
    hours: tuple[int, ...],
    more: tuple[int, ...] = (),
    carry_forward: bool = False,
) -> "pd.Series[int]":
    """The sample hour of each selected reading, by the reading's index label.

    For each hour, selects a stay's last reading since the previous hour in the list. Without such a
    reading, the stay has no row at this hour, because it may be over. With carry_forward, it has a
    row at each hour up to its last reading; the previous reading is selected again. more: a second
    list of hours, sampled in the same way, without the readings that the first list selects.
    """
    last_before = _carried if carry_forward else _last_before
    rows = last_before(stream, hours)
    if more:
        others = last_before(stream, more)
        rows = pd.concat([rows, others[~others.index.isin(rows.index)]]).sort_index(kind="stable")
    return rows


def _carried(stream: Stream, hours: tuple[int, ...]) -> "pd.Series[int]":
    rows = _last_before(stream, hours)
    stays = stream.readings.groupby(KEY, sort=False).ngroup()
    ends = stream.elapsed_hours.groupby(stays).max()
    chosen = pd.DataFrame({"stay": stays[rows.index], "hour": rows, "reading": rows.index})
    grid = chosen.pivot(index="stay", columns="hour", values="reading").reindex(columns=list(hours))
    goes_on = np.array(hours) <= ends[grid.index].to_numpy()[:, np.newaxis]
    carried = grid.ffill(axis=1).where(grid.notna() | goes_on).stack().dropna()
    hour = carried.index.get_level_values("hour").to_numpy()
    return pd.Series(hour, carried.to_numpy(np.int64), name="hour").sort_index(kind="stable")


def _last_before(stream: Stream, hours: tuple[int, ...]) -> "pd.Series[int]":
    hour = np.array(hours)
    passed = stream.elapsed_hours
    which = np.searchsorted(hour, passed.to_numpy(), side="right")
    within = which < len(hour)
    table = stream.readings.loc[within, KEY].assign(hour=hour[which[within]])
    last: pd.Series[int] = table[~table.duplicated([*KEY, "hour"], keep="last")]["hour"]
    return last


def assemble(
    stream: Stream,
    outcomes: pd.DataFrame,
    label: Label,
    features: list[Feature],
    hours: "pd.Series[int]",
) -> Rows:
    """Computes the features and labels of the sampled readings. hours: the result of `sample`.
    Excludes readings of stays without a known outcome. If the label has `within_hours`, also
    excludes readings at or after the event; with label.keep_hours_after, only readings later than
    this number of hours after it. A reading that was selected again counts at the sample hour.
    """
    keys = pd.MultiIndex.from_frame(stream.readings.loc[hours.index, KEY])
    hours = hours[keys.isin(outcomes.index)]
    chosen = stream.readings.loc[hours.index]
    about = chosen[KEY].join(outcomes, on=KEY).join(stream.ages.rename("age"), on=KEY)
    about["hour"] = hours
    y = about[label.column].astype(np.int64)
    if label.after_column is not None and label.within_hours is not None:
        at = (chosen["measured_at"] - chosen["date_admission"]) / HOUR
        again = hours.index.duplicated()
        at += np.where(again, hours - stream.elapsed_hours.loc[hours.index], 0.0)
        event = about[label.after_column].where(y == 1)
        about["ahead"] = ahead = event.astype(np.float64) - at
        y = (ahead <= label.within_hours).astype(int)
        gone = (ahead < -label.keep_hours_after) if label.keep_hours_after else (ahead <= 0)
        about, y, hours = about[~gone], y[~gone], hours[~gone]
    flags = np.zeros(len(stream.readings), dtype=bool)
    flags[stream.readings.index.get_indexer(hours.index)] = True
    matrix = bulk_features(stream.readings, stream.ages, features, flags)
    x = significant(matrix.loc[hours.index].to_numpy(np.float64))
    return Rows(x, y.to_numpy(np.int64), about)


def every_reading(
    stream: Stream,
    outcomes: pd.DataFrame,
    label: Label,
    features: list[Feature],
    stays: pd.DataFrame,
) -> Rows:
    """The rows at every reading of these stays, as in service. stays: their KEY columns."""
    keys = pd.MultiIndex.from_frame(stream.readings[KEY])
    readings = stream.readings[keys.isin(pd.MultiIndex.from_frame(stays))]
    part = Stream(readings, stream.ages, {}, "")
    return assemble(part, outcomes, label, features, pd.Series(0, index=readings.index))


def split(rows: Rows, how: Split) -> tuple[Rows, Rows]:
    """Splits the rows for training and testing, by cohort, time or patient. No patient is on both
    sides.

    Raises DataError if one of the two outcomes is missing on a side, or if there is no cohort to
    split by.
    """
    if how.by == "cohort":
        if "cohort" not in rows.about:
            raise DataError("split by cohort: outcome.csv has no column cohort")
        cohort = rows.about["cohort"].astype(str)
        train, test = cohort.isin(how.train), cohort.isin(how.test)
    elif how.by == "patient":
        test = rows.about["pat_id"].map(_hashed) < how.test_share
        train = ~test
    else:
        stays = rows.about.drop_duplicates(KEY)["date_admission"]
        test = rows.about["date_admission"] > stays.quantile(1 - how.test_share)
        train = ~test
    seen = rows.about.loc[train, "pat_id"].unique()
    test &= ~rows.about["pat_id"].isin(seen)
    parts = rows.where(train), rows.where(test)
    for name, part in zip(("train", "test"), parts, strict=True):
        if len(np.unique(part.y)) < 2:
            stays = rows.about.assign(event=rows.y).groupby(KEY)["event"].max()
            raise DataError(
                f"split: the {name} rows do not have both outcomes; {stays.sum():,.0f} of all "
                f"{len(stays):,} stays have the event. Use more stays, or another split"
            )
    return parts


def _hashed(pat_id: int) -> float:
    """A pseudo-random number from 0 to 1 that depends only on the patient."""
    return int.from_bytes(hashlib.sha256(str(pat_id).encode()).digest()[:4]) / 2**32


def usable(rows: Rows, features: list[Feature]) -> tuple[list[Feature], list[Feature]]:
    """Splits the features into two lists: those that enough stays of `rows` have and whose values
    differ, and the others.
    """
    stays = rows.about.groupby(KEY, sort=False).ngroup().to_numpy()
    kept: list[Feature] = []
    dropped: list[Feature] = []
    for column, feature in zip(rows.x.T, features, strict=True):
        known = ~np.isnan(column)
        enough = len(np.unique(stays[known])) >= FEWEST_STAYS
        varied = enough and np.ptp(column[known]) > 0
        (kept if varied else dropped).append(feature)
    return kept, dropped


def check_size(train: Rows, features: list[Feature], folds: int) -> None:
    """Raises DataError if there are too few stays to train a model with cross-validation."""
    stays = train.about.assign(event=train.y).groupby(KEY)["event"].max()
    if not features:
        raise DataError(
            f"only {len(stays)} stays to train on: a feature is used if at least {FEWEST_STAYS} "
            "of them have it"
        )
    for outcome, count in (("with", int(stays.sum())), ("without", int((1 - stays).sum()))):
        if count < folds:
            raise DataError(
                f"only {count} stays {outcome} the event to train on: "
                f"cross-validation needs at least {folds}"
            )


def select(rows: Rows, features: list[Feature], kept: list[Feature]) -> Rows:
    """`rows` with the columns of the kept features only."""
    place = {feature.name: number for number, feature in enumerate(features)}
    return Rows(rows.x[:, [place[feature.name] for feature in kept]], rows.y, rows.about)


def predictable(rows: Rows, features: list[Feature], required: Iterable[str]) -> Rows:
    """The rows that would get a prediction in service, because no required feature is missing."""
    names = set(required)
    columns = [feature.name in names for feature in features]
    return rows.where(~np.isnan(rows.x[:, columns]).any(axis=1))


def together(one: Rows, other: Rows) -> Rows:
    """Joins two sets of rows."""
    return Rows(
        np.vstack([one.x, other.x]),
        np.append(one.y, other.y),
        pd.concat([one.about, other.about]),
    )
