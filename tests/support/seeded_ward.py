"""Fills the tables of an SQLite file with a ward, without the pipeline.

It is simple on purpose: the tests of the dashboard define the stored rows exactly, and compute the
expected page from the same arguments.
"""

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from tool.database import connect

STREAM = "5eed0001"
START = datetime.fromisoformat("2150-03-01 06:00:00")
VITALS = {"blood_pressure": 120.0, "heart_rate": 80.0, "respiration_rate": 18.0}
COLUMNS = (
    *("stream", "pat_id", "date_admission", "parameter", "n", "mean", "mean_low", "m2"),
    *("minimum", "maximum", "`first_value`", "first_at", "`last_value`", "last_at"),
    *("hours_mean", "hours_m2", "covariance", "seq"),
)
MODEL, VERSION = "formula", "1"
FEATURES = ("age", *(f"{name}__last" for name in VITALS))


def create_tables(url: str) -> None:
    """Creates the pipeline's tables in an empty database."""
    database = connect(url)
    database.create_tables()
    database.close()


class Ward:
    """Creates the tables, and adds stays, readings and rejected messages."""

    def __init__(self, path: Path, stream: str = STREAM) -> None:
        self.stream = stream
        create_tables(f"sqlite:///{path}")
        self.connection = sqlite3.connect(path)
        self.seq = 0
        self.execute(
            "INSERT OR IGNORE INTO models (model, version, role, features, seen_at)"
            " VALUES (?, ?, 'champion', ?, '2026-01-01 00:00:00.000')",
            *(MODEL, VERSION, json.dumps([{"name": name} for name in FEATURES])),
        )

    def execute(self, sql: str, *arguments: object) -> None:
        self.connection.execute(sql, arguments)

    def add_stay(
        self,
        pat_id: int,
        admitted: datetime,
        *,
        age: float | None = 63.2,
        discharged: datetime | None = None,
    ) -> None:
        self.execute(
            "INSERT INTO stays (stream, pat_id, date_admission, age, date_discharge)"
            " VALUES (?, ?, ?, ?, ?)",
            self.stream,
            pat_id,
            admitted.date().isoformat(),
            age,
            None if discharged is None else discharged.date().isoformat(),
        )

    def add_reading(
        self,
        pat_id: int,
        admitted: datetime,
        at: datetime,
        parameter: str,
        value: float,
        probability: float | None = 0.02,
        *,
        waits: bool = False,
        model: str = MODEL,
    ) -> int:
        """Adds a reading with its prediction; returns the number of the message. Of the statistics,
        it updates only n and the last value.

        probability: None if the model has no value. waits: the prediction is pending.
        """
        self.seq += 1
        day, moment = admitted.date().isoformat(), at.isoformat(" ")
        self.execute(
            "INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(self.stream, self.seq, pat_id, day, moment, parameter, value),
        )
        self.execute(
            f"INSERT INTO vitals ({', '.join(COLUMNS)})"
            f" VALUES ({', '.join('?' * len(COLUMNS))})"
            " ON CONFLICT DO UPDATE SET n = n + 1,"
            " last_value = CASE WHEN excluded.last_at >= last_at THEN excluded.last_value"
            " ELSE last_value END, last_at = MAX(last_at, excluded.last_at)",
            *(self.stream, pat_id, day, parameter),
            *(1, value, 0.0, 0.0, value, value, value, moment, value, moment, 0.0, 0.0, 0.0),
            self.seq,
        )
        reason = "waiting for the model" if waits else None if probability else "no value yet"
        features = [63.2, *(value if name == parameter else None for name in VITALS)]
        self.execute(
            f"INSERT INTO predictions VALUES ({', '.join('?' * 13)})",
            *(self.stream, self.seq, model, VERSION, pat_id, day, moment),
            *(json.dumps(features), None if waits else probability, reason, moment, None, None),
        )
        if waits:
            self.execute(
                "INSERT INTO pending VALUES (?, ?, ?, ?)",
                *(self.stream, self.seq, model, VERSION),
            )
        return self.seq

    def reject(self, reason: str, message: str, pat_id: int | None = None) -> None:
        self.seq += 1
        self.execute(
            "INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?)",
            *(self.stream, self.seq, pat_id, reason, message, "2026-01-01 00:00:00.000"),
        )

    def commit(self, committed_at: str = "2026-01-01 00:00:00.000", part: int = 0) -> None:
        """Moves the position of the partition to the last message, as a batch does."""
        # As in the tool, this column has the last message of the batch, not of the stay.
        self.execute("UPDATE vitals SET seq = ? WHERE stream = ?", self.seq, self.stream)
        self.execute(
            "INSERT INTO positions VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT DO UPDATE"
            " SET seq = excluded.seq, vitals_seq = excluded.seq,"
            " committed_at = excluded.committed_at",
            *(self.stream, part, self.seq, self.seq, committed_at),
        )
        self.connection.commit()


@contextmanager
def ward(path: Path, stream: str = STREAM) -> Iterator[Ward]:
    """Opens a ward, and closes it at the end."""
    made = Ward(path, stream)
    try:
        yield made
    finally:
        made.connection.close()


def fill(made: Ward, patients: int, hours: int, *, discharged: int = 0, first: int = 1) -> None:
    """Stores some patients who are in the ICU, with three vitals per hour, and some discharged
    patients.
    """
    for pat_id in range(first, first + patients + discharged):
        left = pat_id >= first + patients
        made.add_stay(pat_id, START, discharged=START + timedelta(days=9) if left else None)
        for hour in range(hours):
            at = START + timedelta(hours=hour)
            for index, (parameter, level) in enumerate(VITALS.items()):
                value = level + 5 * math.sin(pat_id + hour / 3 + index)
                risk = (1 + math.sin(pat_id * 7 + hour / 9)) / 4 + 0.001 * index
                made.add_reading(pat_id, START, at, parameter, round(value, 1), risk)
    made.commit()
