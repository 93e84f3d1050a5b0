"""Reads the tables after a benchmark."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from benchmarks.databases import mark, open_database


class Stored:
    """The rows of one stream in the database."""

    def __init__(self, url: str, stream: str) -> None:
        self._connection = open_database(url)
        self._cursor = self._connection.cursor()
        self._mark = mark(url)
        self._stream = stream

    def close(self) -> None:
        self._connection.close()

    def count(self, table: str) -> int:
        self._execute(f"SELECT COUNT(*) FROM {table} WHERE stream = ?", [self._stream])
        return int(self._cursor.fetchone()[0])

    def models(self) -> dict[tuple[str, str], int]:
        """The number of predictions by model and version."""
        self._execute(
            "SELECT model, version, COUNT(*) FROM predictions WHERE stream = ?"
            " GROUP BY model, version",
            [self._stream],
        )
        return {(model, version): int(count) for model, version, count in self._cursor.fetchall()}

    def features(self, model: str, version: str) -> list[str]:
        """The names of the features of a version of a model."""
        self._execute(
            "SELECT features FROM models WHERE model = ? AND version = ?", [model, version]
        )
        [(features,)] = self._cursor.fetchall()
        return [feature["name"] for feature in json.loads(features)]

    def positions(self) -> dict[int, int]:
        self._execute("SELECT part, seq FROM positions WHERE stream = ?", [self._stream])
        return {int(part): int(seq) for part, seq in self._cursor.fetchall()}

    def rows(self, table: str, key: str, values: Sequence[int]) -> pd.DataFrame:
        """The rows whose `key` is one of `values`."""
        found: list[Any] = []
        for start in range(0, len(values), 500):
            some = list(values[start : start + 500])
            marks = ", ".join("?" * len(some))
            self._execute(
                f"SELECT * FROM {table} WHERE stream = ? AND {key} IN ({marks})",
                [self._stream, *some],
            )
            found += self._cursor.fetchall()
        frame = pd.DataFrame(found, columns=[column[0] for column in self._cursor.description])
        for column in ("date_admission", "measured_at"):
            if column in frame:
                frame[column] = pd.to_datetime(frame[column])
        return frame

    def _execute(self, statement: str, values: Iterable[object]) -> None:
        self._cursor.execute(statement.replace("?", self._mark), tuple(values))
