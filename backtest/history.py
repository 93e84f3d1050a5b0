"""Joins stored predictions with the outcomes of their stays."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from backtest.paths import StayPath
from modelapi.artifact import Ref
from training.config import Label
from training.database import KEY, Snapshot
from training.evaluation import Scores
from training.stream import HOUR

# The optional columns that define subgroups.
ABOUT = ("age", "sex", "unit")


class NoHistory(Exception):
    """The stored predictions cannot be evaluated; the message is one line."""


@dataclass(frozen=True)
class History:
    """One model's predictions before the event, with outcomes, in the order of the stream.

    rows: seq, pat_id, date_admission, hours (since the stay's first reading), probability, y,
    event_at (in hours since the first reading; NaN without an event or if its time is unknown), and
    those columns of ABOUT that exist; index 0, 1, … . stays: by KEY, observed (hours from the first
    to the last reading, at least 1), event and event_at. excluded: the number of readings that are
    not evaluated, by reason.
    """

    version: Ref
    rows: pd.DataFrame
    stays: pd.DataFrame
    excluded: Counter[str]

    def scores(self, hours: tuple[float, float] = (0.0, np.inf)) -> Scores:
        """The rows with low <= hours < high; each stay has weight 1."""
        chosen = (self.rows["hours"] >= hours[0]) & (self.rows["hours"] < hours[1])
        return scores_of(self.rows[chosen])

    def paths(self) -> list[StayPath]:
        """A path for each stay with a known outcome and a reading before the event, even if no
        reading has a probability."""
        found = dict(list(self.rows.groupby(KEY, sort=False)))
        nothing = self.rows[:0]
        paths = []
        for stay in self.stays.itertuples():
            part = found.get(stay.Index, nothing)
            hours, probability = part["hours"].to_numpy(), part["probability"].to_numpy()
            path = StayPath(hours, probability, stay.observed, bool(stay.event), stay.event_at)
            paths.append(path)
        return paths


def scores_of(rows: pd.DataFrame) -> Scores:
    """The rows of a History for evaluation; each stay has weight 1."""
    each = rows.groupby(KEY)["seq"].transform("size")
    return Scores(
        rows["y"].to_numpy(np.int64),
        rows["probability"].to_numpy(np.float64),
        rows["pat_id"].to_numpy(np.int64),
        (1 / each).to_numpy(),
    )


def predictions(stored: Snapshot, stream: str, version: Ref) -> pd.DataFrame:
    """A model's predictions in the order of the stream: seq, pat_id, date_admission, measured_at,
    probability, reason, since_admission (hours since admission) and hours (since the stay's first
    reading).

    Raises NoHistory if the model has none.
    """
    cursor = stored.select(
        "SELECT seq, pat_id, date_admission, measured_at, output AS probability, reason"
        " FROM predictions WHERE stream = ? AND model = ? AND version = ? ORDER BY seq",
        *(stream, version.model, version.version),
    )
    names = [column[0] for column in cursor.description]
    rows = pd.DataFrame.from_records(cursor.fetchall(), columns=names)
    if rows.empty:
        raise NoHistory(f"stream {stream}: {version} has no prediction")
    for column in ("date_admission", "measured_at"):
        rows[column] = pd.to_datetime(rows[column]).dt.as_unit("s")
    # The event's time is relative to the admission, but the hours are relative to the stay's first
    # reading.
    rows["since_admission"] = (rows["measured_at"] - rows["date_admission"]) / HOUR
    first = rows.groupby(KEY)["measured_at"].transform("min")
    rows["hours"] = (rows["measured_at"] - first) / HOUR
    return rows


def judge(version: Ref, rows: pd.DataFrame, outcomes: pd.DataFrame, label: Label) -> History:
    """Joins predictions and outcomes, and drops readings that cannot be evaluated.

    Readings at or after the event are excluded. Raises NoHistory if no reading is left.
    """
    excluded: Counter[str] = Counter()
    known = pd.MultiIndex.from_frame(rows[KEY]).isin(outcomes.index)
    excluded["stay without an outcome"] += int((~known).sum())
    about = [column for column in ABOUT if column in outcomes]
    rows = rows[known].join(outcomes[[*_columns(label), *about]], on=KEY)
    event = rows[label.column] == 1
    ahead = pd.Series(np.nan, index=rows.index)
    if label.after_column is not None:
        ahead = rows[label.after_column] - rows["since_admission"]
        event_at = rows["hours"] + ahead
    else:
        event_at = ahead
    over = event & (ahead <= 0)
    excluded["reading at or after the event"] += int(over.sum())
    y = event if label.within_hours is None else event & (ahead <= label.within_hours)
    rows = rows.assign(y=y.astype(np.int64), event_at=event_at.where(event), event=event)[~over]
    if rows.empty:
        raise NoHistory(f"{version}: no reading of a stay with a known outcome")
    stays = rows.groupby(KEY, sort=False).agg(
        observed=("hours", "max"), event=("event", "max"), event_at=("event_at", "first")
    )
    stays["observed"] = stays["observed"].clip(lower=1.0)
    missing = rows["probability"].isna()
    for reason, count in rows.loc[missing, "reason"].value_counts().items():
        excluded[str(reason)] += int(count)
    columns = ["seq", *KEY, "hours", "probability", "y", "event_at", *about]
    judged = rows.loc[~missing, columns]
    return History(version, judged.reset_index(drop=True), stays, +excluded)


def _columns(label: Label) -> list[str]:
    return [label.column] if label.after_column is None else [label.column, label.after_column]
