"""Reads and writes the tables of the alarms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tool.database.database import Database
from tool.database.errors import Moved
from tool.database.literals import names, plain
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

INPUTS = """
SELECT p.seq, p.pat_id, p.date_admission, p.measured_at, 'prediction', p.output, NULL,
    p.created_at, w.seq
FROM predictions p
LEFT JOIN pending w
    ON w.stream = p.stream AND w.seq = p.seq AND w.model = p.model AND w.version = p.version
WHERE p.stream = ? AND p.seq > ? AND p.seq <= ? AND p.model = ? AND p.version = ?
    AND (p.output IS NOT NULL OR w.seq IS NOT NULL)
UNION ALL
SELECT seq, pat_id, date_admission, acknowledged_at, 'acknowledgement', snooze_hours, author,
    NULL, NULL
FROM acknowledgements
WHERE stream = ? AND seq > ? AND seq <= ? AND (model IS NULL OR model = ?)
UNION ALL
SELECT seq, pat_id, date_admission, happened_at, 'discharge', NULL, NULL, created_at, NULL
FROM discharges
WHERE stream = ? AND seq > ? AND seq <= ?"""

STATES = f"SELECT {names(columns('alarm_state'))} FROM alarm_state"

OUTBOX = f"""
SELECT {", ".join(f"alarms.{column}" for column in columns("alarms"))} FROM outbox JOIN alarms
    ON alarms.stream = outbox.stream AND alarms.seq = outbox.seq
    AND alarms.model = outbox.model AND alarms.version = outbox.version
ORDER BY outbox.stream, outbox.seq, outbox.model, outbox.version LIMIT ?"""


class Input(NamedTuple):
    """A message that may change the alarms of a stay.

    kind: prediction, acknowledgement or discharge. value: the output of a model, or the hours of
    a snooze. waits: the message number if the prediction is pending, else None.
    """

    seq: int
    pat_id: int
    date_admission: str
    at: str
    kind: str
    value: float | None
    author: str | None
    created_at: str | None
    waits: int | None


class Part(NamedTuple):
    """A partition. done: the message up to which its alarms are computed. stored: its last stored
    message."""

    part: int
    stored: int
    done: int


class Step(NamedTuple):
    """The next step of a model's alarms. parts: the partitions that are behind. inputs: those from
    the messages up to `last`, in order."""

    parts: list[Part]
    last: int
    inputs: list[Input]


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


class AlarmTables:
    """The tables of the alarms. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._session = database.session

    def streams(self, model: str, version: str) -> list[tuple[str, int]]:
        """The streams whose alarms are not computed completely, each with its last message."""
        return [(stream, last) for stream, last in self._read(STREAMS, (model, version))]

    def next_step(self, stream: str, model: str, version: str, size: int) -> Step | None:
        """The next inputs of a model's alarms, from at most `size` messages; None at the end."""
        # Both statements read one snapshot. Otherwise, if a worker stored messages of another
        # partition between them, the inputs could include only those after `after`.
        with self._session.snapshot() as cursor:
            parts = [Part(*row) for row in self._rows(cursor, BEHIND, (model, version, stream))]
            if not parts:
                return None
            after = min(part.done for part in parts)
            last = min(after + size, max(part.stored for part in parts))
            some = (stream, after, last)
            values = (*some, model, version, *some, model, *some)
            inputs = sorted(Input(*row) for row in self._rows(cursor, INPUTS, values))
        return Step(parts, last, inputs)

    def states(
        self, stream: str, model: str, version: str, patients: Iterable[int]
    ) -> list[AlarmStateRow]:
        """The stored states of the alarm rule for all stays of these patients."""
        some = sorted(set(patients))
        marks = ", ".join("?" * len(some))
        where = f"WHERE pat_id IN ({marks}) AND model = ? AND version = ? AND stream = ?"
        rows = self._read(f"{STATES} {where}", (*some, model, version, stream)) if some else ()
        return [AlarmStateRow(*row) for row in rows]

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
            return self._rows(cursor, statement, values)

    def _rows(self, cursor: Any, statement: str, values: Sequence[Any]) -> list[Any]:
        self._session.execute(cursor, statement, values)
        return [tuple(plain(row)) for row in cursor.fetchall()]
