"""Reads and writes the tables of `wire.tables`."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from tool.database.changes import Behind, Changes
from tool.database.commit import write
from tool.database.errors import Moved
from tool.database.literals import names, plain
from tool.database.schema import prepare
from tool.database.session import Session
from wire.tables import (
    ModelRow,
    PositionRow,
    PredictionRow,
    ReadingRow,
    RejectedRow,
    StayRow,
    VitalRow,
    columns,
)

T = TypeVar("T")

MODELS = f"SELECT {names(columns('models'))} FROM models"
POSITIONS = f"SELECT {names(columns('positions'))} FROM positions"
READINGS = f"SELECT {names(columns('readings'))} FROM readings"
REJECTED = f"SELECT {names(columns('rejected'))} FROM rejected"
# The second join finds the prediction whose row has the array of features.
PENDING = (
    f"SELECT {', '.join(f'p.{column}' for column in columns('predictions'))},"
    " q.model, q.version, q.features"
    " FROM pending JOIN predictions p ON p.stream = pending.stream AND p.seq = pending.seq"
    " AND p.model = pending.model AND p.version = pending.version"
    " JOIN predictions q ON q.stream = p.stream AND q.seq = p.seq"
    " AND q.model = COALESCE(p.features_model, p.model)"
    " AND q.version = COALESCE(p.features_version, p.version)"
)
# The tables that may contain a stored message, and the column with the message number.
STORED = (
    ("readings", "seq"),
    ("withdrawn", "of_seq"),
    ("withdrawn", "seq"),
    ("outcomes", "seq"),
    ("acknowledgements", "seq"),
    ("discharges", "seq"),
)


class Waiting(NamedTuple):
    """A pending prediction, and the version whose prediction for the reading has the array of
    features."""

    row: PredictionRow
    model: str
    version: str
    array: str


class Database:
    """Reads and writes the tables through one long-lived session. Each method is one
    transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def close(self) -> None:
        self.session.close()

    def create_tables(self) -> None:
        """Creates or upgrades the tables. Raises PermanentFailure if that is impossible."""
        prepare(self.session)

    def commit(self, changes: Changes) -> None:
        """Writes all changes or none. Raises Moved, PermanentFailure or Unavailable."""
        with self.session.transaction() as cursor:
            write(self.session, cursor, changes)

    def position(self, stream: str, part: int) -> int:
        """The last stored message of the partition; 0 if there is none."""
        found = self._read(
            PositionRow, f"{POSITIONS} WHERE stream = ? AND part = ?", (stream, part)
        )
        return found[0].seq if found else 0

    def positions(self) -> list[PositionRow]:
        """The positions of all partitions of all streams."""
        return self._read(PositionRow, POSITIONS)

    def stays(self, stream: str, patients: Sequence[int]) -> tuple[list[StayRow], list[VitalRow]]:
        """The stays and vitals of these patients."""
        marks = ", ".join("?" * len(patients))
        where = f"WHERE pat_id IN ({marks}) AND stream = ?"
        values = (*patients, stream)
        with self.session.reading() as cursor:
            return (
                self._select(cursor, StayRow, f"{_all('stays')} {where}", values),
                self._select(cursor, VitalRow, f"{_all('vitals')} {where}", values),
            )

    def recent(self, stream: str, pat_id: int, date_admission: str, since: str) -> list[ReadingRow]:
        """The stay's readings measured at or after `since`, in the order of the stream."""
        return self._read(
            ReadingRow,
            f"{READINGS} WHERE pat_id = ? AND date_admission = ? AND measured_at >= ?"
            " AND stream = ? ORDER BY seq",
            (pat_id, date_admission, since, stream),
        )

    def reading(self, stream: str, seq: int) -> ReadingRow | None:
        """The reading with this number; None if there is none or it was withdrawn."""
        found = self._read(ReadingRow, f"{READINGS} WHERE stream = ? AND seq = ?", (stream, seq))
        return found[0] if found else None

    def readings_of(
        self, stream: str, pat_id: int, date_admission: str, parameter: str
    ) -> list[ReadingRow]:
        """All readings of one parameter of a stay, in the order of the stream."""
        return self._read(
            ReadingRow,
            f"{READINGS} WHERE pat_id = ? AND date_admission = ? AND stream = ?"
            " AND parameter = ? ORDER BY seq",
            (pat_id, date_admission, stream, parameter),
        )

    def parts_behind(self) -> list[PositionRow]:
        """The partitions with readings that `vitals` may not include yet."""
        return self._read(PositionRow, f"{POSITIONS} WHERE vitals_seq < seq")

    def behind(self, stream: str) -> Behind:
        """The readings that `vitals` may not include yet; no positions if it is up to date.

        Reads the positions and the readings at the same moment. Otherwise, the readings could
        include later batches of a partition, but not those before the least position.
        """
        with self.session.snapshot() as cursor:
            found = self._select(cursor, PositionRow, f"{POSITIONS} WHERE stream = ?", (stream,))
            behind = [row.vitals_seq for row in found if row.vitals_seq < row.seq]
            if not behind:
                return Behind({}, [], 0)
            readings = self._select(
                cursor,
                ReadingRow,
                f"{READINGS} WHERE stream = ? AND seq > ? ORDER BY seq",
                (stream, min(behind)),
            )
            withdrawals = self._withdrawals(cursor, stream)
        return Behind({row.part: row.seq for row in found}, readings, withdrawals)

    def catch_up(self, stream: str, behind: Behind, vitals: Sequence[VitalRow]) -> None:
        """Writes the rows of `vitals` that are newer than those in the table, and moves
        `vitals_seq`. Raises Moved if a reading was withdrawn after `behind` was read, because the
        rows may include it.
        """
        with self.session.writing() as cursor:
            # The update waits for a running batch of these partitions, and blocks later batches.
            for part, seq in sorted(behind.positions.items()):
                self.session.execute(
                    cursor,
                    "UPDATE positions SET vitals_seq = ?"
                    " WHERE stream = ? AND part = ? AND vitals_seq < ?",
                    (seq, stream, part, seq),
                )
            if self._withdrawals(cursor, stream) != behind.withdrawals:
                raise Moved
            # Another worker may have written rows since `behind` was read.
            self.session.replace(cursor, "vitals", vitals, newer="seq")

    def _withdrawals(self, cursor: Any, stream: str) -> int:
        self.session.execute(cursor, "SELECT COUNT(*) FROM withdrawn WHERE stream = ?", (stream,))
        return int(cursor.fetchone()[0])

    def models(self) -> list[ModelRow]:
        """All versions of models that have been declared."""
        return self._read(ModelRow, MODELS)

    def remember_models(self, rows: Sequence[ModelRow]) -> None:
        """Stores the models in use; all others are retired."""
        with self.session.writing() as cursor:
            self.session.execute(
                cursor, "UPDATE models SET role = 'retired' WHERE role <> 'retired'"
            )
            self.session.replace(cursor, "models", rows)

    def pending(self, model: str, version: str, limit: int) -> list[Waiting]:
        """Pending predictions of this version of the model, oldest first."""
        with self.session.reading() as cursor:
            self.session.execute(
                cursor,
                f"{PENDING} WHERE pending.model = ? AND pending.version = ?"
                " ORDER BY pending.stream, pending.seq LIMIT ?",
                (model, version, limit),
            )
            found = plain(cursor.fetchall())
        return [Waiting(PredictionRow(*cells[:-3]), *cells[-3:]) for cells in found]

    def waiting(self, limit: int) -> int:
        """The number of pending predictions, up to `limit`."""
        with self.session.reading() as cursor:
            self.session.execute(
                cursor,
                "SELECT COUNT(*) FROM (SELECT 1 FROM pending LIMIT ?) AS counted",
                (limit,),
            )
            return int(cursor.fetchone()[0])

    def fill_in(self, rows: Sequence[PredictionRow]) -> None:
        """Stores the answers to pending predictions, which are then no longer pending."""
        with self.session.writing() as cursor:
            self.session.replace(cursor, "predictions", rows)
            # One statement per group, because each statement takes a round trip.
            for key, group in groupby(rows, lambda row: (row.model, row.version, row.stream)):
                numbers = ", ".join(str(row.seq) for row in group)
                self.session.execute(
                    cursor,
                    "DELETE FROM pending WHERE model = ? AND version = ? AND stream = ?"
                    f" AND seq IN ({numbers})",
                    key,
                )

    def is_stored(self, stream: str, seq: int) -> bool:
        """Whether the message is stored, possibly as a reading that was withdrawn later."""
        parts = [
            f"SELECT 1 FROM {table} WHERE stream = ? AND {column} = ?" for table, column in STORED
        ]
        with self.session.reading() as cursor:
            self.session.execute(cursor, " UNION ALL ".join(parts), (stream, seq) * len(parts))
            return bool(cursor.fetchall())

    def count(self, table: str, stream: str) -> int:
        """The number of rows of the stream in the table. For `predictions`, the number of readings
        for which any version of the champion's model has an output.
        """
        what, where = "*", ""
        if table == "predictions":
            what = "DISTINCT seq"
            where = (
                " AND output IS NOT NULL"
                " AND model = (SELECT MIN(model) FROM models WHERE role = 'champion')"
            )
        with self.session.reading() as cursor:
            self.session.execute(
                cursor, f"SELECT COUNT({what}) FROM {table} WHERE stream = ?{where}", (stream,)
            )
            return int(cursor.fetchone()[0])

    def rejected(self, reason: str) -> list[RejectedRow]:
        """Rejected messages whose reason starts with `reason`."""
        return self._read(
            RejectedRow,
            f"{REJECTED} WHERE SUBSTR(reason, 1, ?) = ? ORDER BY stream, seq",
            (len(reason), reason),
        )

    def _read(self, row: type[T], statement: str, values: Sequence[Any] = ()) -> list[T]:
        with self.session.reading() as cursor:
            return self._select(cursor, row, statement, values)

    def _select(
        self, cursor: Any, row: type[T], statement: str, values: Sequence[Any] = ()
    ) -> list[T]:
        self.session.execute(cursor, statement, values)
        return [row(*cells) for cells in plain(cursor.fetchall())]


def _all(table: str) -> str:
    return f"SELECT {names(columns(table))} FROM {table}"
