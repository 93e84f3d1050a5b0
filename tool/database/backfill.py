"""The statements of the backfill."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from msgspec.structs import astuple

from tool.database.database import Database
from tool.database.literals import names, plain
from wire.tables import ModelRow, PredictionRow, ReadingRow, StayRow, WithdrawnRow, columns

StayKey = tuple[str, int, str]  # stream, pat_id, date_admission

# Maximum number of keys in one statement.
CHUNK = 500


class Made(NamedTuple):
    """The stored predictions of a stay. at: for each message number, when the first prediction was
    made. done: the numbers for which the backfilled version has a prediction.
    """

    at: dict[int, str]
    done: set[int]


class BackfillTables:
    """Reads and writes the rows of a backfill. All methods raise DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session = database.session
        # The withdrawn readings of each stay of a stream.
        self._withdrawn: dict[str, dict[StayKey, list[WithdrawnRow]]] = {}

    def stays(self) -> list[StayRow]:
        """All stays of all streams."""
        return [StayRow(*row) for row in self._rows("stays")]

    def readings(self, key: StayKey) -> tuple[list[ReadingRow], list[WithdrawnRow]]:
        """The readings of a stay, and those that were withdrawn. Both are read at the same moment,
        because the tool may withdraw a reading during the backfill."""
        where = "WHERE stream = ? AND pat_id = ? AND date_admission = ?"
        with self._session.snapshot() as cursor:
            readings = [ReadingRow(*row) for row in self._select(cursor, "readings", where, key)]
            self._update_withdrawn(cursor, key[0])
        return readings, self._withdrawn[key[0]].get(key, [])

    def _update_withdrawn(self, cursor: Any, stream: str) -> None:
        """Reads the withdrawn readings of a stream, unless their number is the same as before. The
        table has no index on the stay."""
        statement = "SELECT COUNT(*) FROM withdrawn WHERE stream = ?"
        self._session.execute(cursor, statement, (stream,))
        [(count,)] = cursor.fetchall()
        known = self._withdrawn.get(stream)
        if known is not None and sum(map(len, known.values())) == count:
            return
        found: defaultdict[StayKey, list[WithdrawnRow]] = defaultdict(list)
        for cells in self._select(cursor, "withdrawn", "WHERE stream = ?", (stream,)):
            row = WithdrawnRow(*cells)
            found[row.stream, row.pat_id, row.date_admission].append(row)
        self._withdrawn[stream] = found

    def made(self, stream: str, numbers: Sequence[int], model: str, version: str) -> Made:
        """The predictions for these messages."""
        made = Made({}, set())
        for start in range(0, len(numbers), CHUNK):
            some = numbers[start : start + CHUNK]
            where = f"WHERE stream = ? AND seq IN ({', '.join('?' * len(some))})"
            for cells in self._rows("predictions", where, (stream, *some)):
                row = PredictionRow(*cells)
                made.at[row.seq] = min(row.created_at, made.at.get(row.seq, row.created_at))
                if (row.model, row.version) == (model, version):
                    made.done.add(row.seq)
        return made

    def add_model(self, row: ModelRow) -> None:
        """Stores a model, unless it is already stored."""
        cells = astuple(row)
        marks = ", ".join("?" * len(cells))
        statement = f"INSERT INTO models ({names(columns('models'))}) VALUES ({marks})"
        # No query before, because another program may add the same model in between.
        with self._session.writing() as cursor, suppress(self._session.duplicate_key):
            self._session.execute(cursor, statement, cells)

    def mark_changed(self, model: str, version: str, at: str) -> None:
        """Sets `seen_at` of the model, so that the dashboard reads its predictions again."""
        with self._session.writing() as cursor:
            self._session.execute(
                cursor,
                "UPDATE models SET seen_at = ? WHERE model = ? AND version = ?",
                (at, model, version),
            )

    def add(self, rows: Sequence[PredictionRow]) -> None:
        """Stores predictions. Two backfills at the same time store the same rows."""
        with self._session.writing() as cursor:
            self._session.replace(cursor, "predictions", rows)

    def _rows(
        self, table: str, where: str = "", values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        with self._session.reading() as cursor:
            return self._select(cursor, table, where, values)

    def _select(
        self, cursor: Any, table: str, where: str, values: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        statement = f"SELECT {names(columns(table))} FROM {table} {where}"
        self._session.execute(cursor, statement, values)
        return plain(cursor.fetchall())
