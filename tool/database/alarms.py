"""Reads and writes the tables of the alarms."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tool.database.database import Database
from tool.database.errors import Moved
from tool.database.literals import names, plain
from tool.database.session import Session
from wire.tables import AlarmRow, AlarmStateRow, OutboxRow, columns

STREAMS = """
SELECT p.stream, MAX(p.seq) FROM positions p
LEFT JOIN alarm_positions a
    ON a.stream = p.stream AND a.part = p.part AND a.model = ? AND a.version = ?
WHERE p.seq > COALESCE(a.seq, 0) GROUP BY p.stream ORDER BY p.stream"""

BEHIND = """
SELECT p.part, p.seq, COALESCE(a.seq, 0) FROM positions p
LEFT JOIN alarm_positions a
    ON a.stream = p.stream AND a.part = p.part AND a.model = ? AND a.version = ?
WHERE p.stream = ? AND p.seq > COALESCE(a.seq, 0)"""

RANGE = "stream = ? AND seq > ? AND seq <= ?"

PENDING = """
SELECT MIN(p.seq) FROM pending w
JOIN predictions p
    ON p.stream = w.stream AND p.seq = w.seq AND p.model = w.model AND p.version = w.version
WHERE w.stream = ? AND w.seq > ? AND w.seq <= ? AND w.model = ? AND w.version = ?"""

OF_MODEL = f"FROM predictions WHERE {RANGE} AND model = ? AND version = ? AND output IS NOT NULL"

SUMMARIES = f"""
SELECT pat_id, date_admission, MIN(seq), MAX(seq), MIN(measured_at), MAX(measured_at), MAX(output)
{OF_MODEL} GROUP BY pat_id, date_admission"""

PREDICTIONS = f"""
SELECT seq, pat_id, date_admission, measured_at, 'prediction', output, NULL, created_at
{OF_MODEL}"""

OTHERS = f"""
SELECT seq, pat_id, date_admission, acknowledged_at, 'acknowledgement', snooze_hours, author, NULL
FROM acknowledgements WHERE {RANGE} AND (model IS NULL OR model = ?)
UNION ALL
SELECT seq, pat_id, date_admission, happened_at, 'discharge', NULL, NULL, created_at
FROM discharges WHERE {RANGE}"""

STATES = f"SELECT {names(columns('alarm_state'))} FROM alarm_state"

OUTBOX = f"""
SELECT {", ".join(f"alarms.{column}" for column in columns("alarms"))} FROM outbox JOIN alarms
    ON alarms.stream = outbox.stream AND alarms.seq = outbox.seq
    AND alarms.model = outbox.model AND alarms.version = outbox.version
ORDER BY outbox.stream, outbox.seq, outbox.model, outbox.version LIMIT ?"""


class Input(NamedTuple):
    """A message that may change the alarms of a stay.

    kind: prediction, acknowledgement or discharge. value: the output of a model, or the hours of
    a snooze.
    """

    seq: int
    pat_id: int
    date_admission: str
    at: str
    kind: str
    value: float | None
    author: str | None
    created_at: str | None


class Summary(NamedTuple):
    """A model's predictions for a stay in a range of messages: the first and the last message
    number, the earliest and the latest time, and the highest output."""

    pat_id: int
    date_admission: str
    first_seq: int
    last_seq: int
    first_at: str
    last_at: str
    highest: float


class Part(NamedTuple):
    """A partition. done: the message up to which its alarms are computed. stored: its last stored
    message."""

    part: int
    stored: int
    done: int


@dataclass
class AlarmChanges:
    """The rows that one step of a model's alarms writes. moves: partitions with their new
    positions."""

    stream: str
    model: str
    version: str
    moves: list[tuple[Part, int]]
    alarms: list[AlarmRow] = field(default_factory=list)
    states: list[AlarmStateRow] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)


class AlarmInputs:
    """The inputs of the alarms of one model and one stream, from one snapshot of the tables.

    Without a snapshot, if a worker stored messages of another partition between two statements, the
    inputs could include only the later of these messages. A range excludes the message `after` and
    includes the message `last`.
    """

    def __init__(
        self, session: Session, cursor: Any, stream: str, model: str, version: str
    ) -> None:
        self._session = session
        self._cursor = cursor
        self._stream = stream
        self._model = (model, version)

    def behind(self) -> list[Part]:
        """The partitions whose alarms are not computed completely."""
        return [Part(*row) for row in self._rows(BEHIND, (*self._model, self._stream))]

    def first_pending(self, after: int, last: int) -> int | None:
        """The first message in the range whose prediction is pending."""
        [[seq]] = self._rows(PENDING, (self._stream, after, last, *self._model))
        return None if seq is None else int(seq)

    def summaries(self, after: int, last: int) -> list[Summary]:
        """The predictions for each stay."""
        found = self._rows(SUMMARIES, (self._stream, after, last, *self._model))
        return [Summary(*row) for row in found]

    def predictions(self, after: int, last: int, patients: Iterable[int]) -> list[Input]:
        """The predictions for the stays of these patients."""
        some = sorted(patients)
        values = (self._stream, after, last, *self._model, *some)
        return self._inputs(f"{PREDICTIONS} AND {_in(some)}", values) if some else []

    def others(self, after: int, last: int) -> list[Input]:
        """The acknowledgements and discharges."""
        some = (self._stream, after, last)
        return self._inputs(OTHERS, (*some, self._model[0], *some))

    def states(self, patients: Iterable[int]) -> list[AlarmStateRow]:
        """The stored states of the alarm rule for all stays of these patients."""
        some = sorted(patients)
        if not some:
            return []
        where = f"WHERE {_in(some)} AND model = ? AND version = ? AND stream = ?"
        rows = self._rows(f"{STATES} {where}", (*some, *self._model, self._stream))
        return [AlarmStateRow(*row) for row in rows]

    def _inputs(self, statement: str, values: Sequence[Any]) -> list[Input]:
        return [Input(*row) for row in self._rows(statement, values)]

    def _rows(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return _rows(self._session, self._cursor, statement, values)


class AlarmTables:
    """The tables of the alarms. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._session = database.session

    def streams(self, model: str, version: str) -> list[tuple[str, int]]:
        """The streams whose alarms are not computed completely, each with its last message."""
        return [(stream, last) for stream, last in self._read(STREAMS, (model, version))]

    @contextmanager
    def inputs(self, stream: str, model: str, version: str) -> Iterator[AlarmInputs]:
        """A snapshot of the tables."""
        with self._session.snapshot() as cursor:
            yield AlarmInputs(self._session, cursor, stream, model, version)

    def commit(self, changes: AlarmChanges) -> None:
        """Writes the changes. Raises Moved when another process has computed these alarms."""
        session = self._session
        with session.writing() as cursor:
            for part, seq in changes.moves:
                self._move(cursor, changes, part, seq)
            session.insert(cursor, "alarms", changes.alarms)
            session.replace(cursor, "alarm_state", changes.states)
            session.insert(cursor, "outbox", changes.outbox)

    def unsent(self, limit: int) -> list[AlarmRow]:
        """Alarms that the webhook has not accepted yet; those of a stay are in order."""
        return [AlarmRow(*row) for row in self._read(OUTBOX, (limit,))]

    def sent(self, alarm: AlarmRow) -> None:
        """Records that the webhook has accepted an alarm."""
        with self._session.writing() as cursor:
            self._session.execute(
                cursor,
                "DELETE FROM outbox WHERE stream = ? AND seq = ? AND model = ? AND version = ?",
                (alarm.stream, alarm.seq, alarm.model, alarm.version),
            )

    def _move(self, cursor: Any, changes: AlarmChanges, part: Part, seq: int) -> None:
        key = (changes.stream, part.part, changes.model, changes.version)
        self._session.execute(
            cursor,
            "UPDATE alarm_positions SET seq = ?"
            " WHERE stream = ? AND part = ? AND model = ? AND version = ? AND seq = ?",
            (seq, *key, part.done),
        )
        if cursor.rowcount == 1:
            return
        if part.done:
            raise Moved
        try:
            self._session.execute(
                cursor,
                "INSERT INTO alarm_positions (stream, part, model, version, seq)"
                " VALUES (?, ?, ?, ?, ?)",
                (*key, seq),
            )
        except self._session.duplicate_key:
            raise Moved from None

    def _read(self, statement: str, values: Sequence[Any]) -> list[Any]:
        with self._session.reading() as cursor:
            return _rows(self._session, cursor, statement, values)


def _in(patients: Sequence[int]) -> str:
    return f"pat_id IN ({', '.join('?' * len(patients))})"


def _rows(session: Session, cursor: Any, statement: str, values: Sequence[Any]) -> list[Any]:
    session.execute(cursor, statement, values)
    return plain(cursor.fetchall())
