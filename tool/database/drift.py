"""The statements of the drift task."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tool.database.literals import names, plain
from tool.database.session import Session
from tool.times import hours_of, text_of
from wire import database
from wire.drift import DriftRow
from wire.messages import ordinal
from wire.tables import columns

POSITIONS = "SELECT seq, committed_at FROM positions WHERE stream = ?"
STREAM = "SELECT stream FROM positions ORDER BY committed_at DESC, stream LIMIT 1"
LAST_DAYS = "SELECT DISTINCT day, seq FROM drift WHERE stream = ? ORDER BY day DESC LIMIT 2"
READINGS = (
    "SELECT seq, pat_id, date_admission, measured_at, parameter, value FROM readings"
    " WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)
FIGURES = f"SELECT {names(columns('drift'))} FROM drift WHERE stream = ? AND day = ?"
REJECTED = "SELECT COUNT(*) FROM rejected WHERE stream = ? AND seq > ? AND seq <= ?"
ANSWERS = (
    "SELECT output FROM predictions"
    " WHERE stream = ? AND model = ? AND version = ? AND output IS NOT NULL AND seq IN ({})"
)
# The earliest position of the partitions in which stored messages still lack their alarms.
ALARMS_TO = (
    "SELECT MIN(COALESCE(a.seq, 0)) FROM positions p LEFT JOIN alarm_positions a"
    " ON a.stream = p.stream AND a.part = p.part AND a.model = ? AND a.version = ?"
    " WHERE p.stream = ? AND COALESCE(a.seq, 0) < p.seq"
)
ALARMS = (
    "SELECT COUNT(*) FROM alarms WHERE stream = ? AND model = ? AND version = ?"
    " AND seq > ? AND seq <= ? AND kind IN ('raise', 'again')"
)
OUTCOMES = (
    "SELECT pat_id, date_admission, value FROM outcomes WHERE stream = ? AND name = ?"
    " AND seq <= ? ORDER BY seq DESC LIMIT ?"
)
FIRST = (
    "SELECT MIN(measured_at) FROM readings WHERE stream = ? AND pat_id = ? AND date_admission = ?"
)
# Joins `readings`, because `predictions` has no index on the stay.
ANSWER_OF = (
    "SELECT p.output FROM readings r JOIN predictions p"
    " ON p.stream = r.stream AND p.seq = r.seq AND p.model = ? AND p.version = ?"
    " WHERE r.pat_id = ? AND r.date_admission = ? AND r.stream = ? AND r.measured_at < ?"
    " AND p.output IS NOT NULL ORDER BY r.measured_at DESC, r.seq DESC LIMIT 1"
)
# Maximum number of keys in one statement.
CHUNK = 500


class DriftTables:
    """Reads through a separate read-only connection, so that these reads block no other statement.
    Writes through the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._connection: database.Connection | None = None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*database.ERRORS):
                connection.close()

    def newest_stream(self) -> str | None:
        """The stream with the latest commit."""
        return next((str(stream) for (stream,) in self._rows(STREAM)), None)

    def positions(self, stream: str) -> list[tuple[int, str]]:
        """The last stored message of each partition, and when it was committed."""
        return [(seq, at) for seq, at in self._rows(POSITIONS, stream)]

    def before_last(self, stream: str) -> tuple[str, int]:
        """The second to last day with figures, and the message after which later days begin; an
        empty text and 0 if there is no such day."""
        return next(((day, seq) for day, seq in self._rows(LAST_DAYS, stream)[1:]), ("", 0))

    def figures(self, stream: str, day: str) -> list[DriftRow]:
        """The figures of a day, of all models."""
        return [DriftRow(*row) for row in self._rows(FIGURES, stream, day)]

    def readings(self, stream: str, after: int, to: int, limit: int) -> list[Any]:
        """(seq, pat_id, date_admission, measured_at, parameter, value), in order of seq."""
        return self._rows(READINGS, stream, after, to, limit)

    def rejected(self, stream: str, after: int, to: int) -> int:
        """The number of rejected messages in (after, to]."""
        return int(self._rows(REJECTED, stream, after, to)[0][0])

    def answers(self, stream: str, model: str, version: str, seqs: Sequence[int]) -> list[float]:
        """The outputs that are known for these readings."""
        found: list[float] = []
        for start in range(0, len(seqs), CHUNK):
            some = seqs[start : start + CHUNK]
            statement = ANSWERS.format(", ".join("?" * len(some)))
            found += [p for (p,) in self._rows(statement, stream, model, version, *some)]
        return found

    def alarms_to(self, stream: str, model: str, version: str) -> int | None:
        """The message up to which the alarms are computed; None if they are computed for all stored
        messages."""
        found = self._rows(ALARMS_TO, model, version, stream)[0][0]
        return None if found is None else int(found)

    def alarms(self, stream: str, model: str, version: str, after: int, to: int) -> int:
        """The number of alarms, including repeated ones, that messages in (after, to] caused."""
        return int(self._rows(ALARMS, stream, model, version, after, to)[0][0])

    def outcomes(self, stream: str, name: str, to: int, limit: int) -> list[tuple[int, str, float]]:
        """(pat_id, date_admission, value) of the newest `limit` outcomes up to message `to`."""
        return [tuple(row) for row in self._rows(OUTCOMES, stream, name, to, limit)]

    def answer_of(
        self, stream: str, model: str, version: str, pat_id: int, admitted: str, hours: float
    ) -> float | None:
        """The stay's last output in the first `hours` hours after its first reading; None without
        one."""
        first = self._rows(FIRST, stream, pat_id, admitted)[0][0]
        if first is None:
            return None
        day = ordinal(admitted)
        until = text_of(day, hours_of(first, day) + hours)
        rows = self._rows(ANSWER_OF, model, version, pat_id, admitted, stream, until)
        return next((float(p) for (p,) in rows), None)

    def write(self, rows: Sequence[DriftRow]) -> None:
        """Stores a day's figures; storing them again has no further effect."""
        with self._session.writing() as cursor:
            self._session.replace(cursor, "drift", rows)

    def _rows(self, statement: str, *values: object) -> list[Any]:
        session = self._session
        try:
            if self._connection is None:
                self._connection = database.connect(session.url, session.password, read_only=True)
            cursor = self._connection.cursor()
            cursor.execute(statement.replace("?", session.placeholder), values)
            rows = cursor.fetchall()
            cursor.close()
        except database.ERRORS as error:
            self.close()
            raise session.translate(error) from error
        return plain(rows)
