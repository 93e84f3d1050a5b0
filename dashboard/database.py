"""What the dashboard reads from the database: each query by an index, none by a scan.

The cost of a query follows from the size of the ward and the length of one stay. How much
history is stored does not matter: tests count the steps.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote, urlsplit

import mysql.connector

Row = tuple[Any, ...]

# Beyond these a page says that there is more.
WARD_LIMIT = 500
DISCHARGED_LIMIT = 40
STAY_LIMIT = 20_000
REJECTED_LIMIT = 50
PENDING_LIMIT = 10_000


BEFORE_ALL = datetime.fromisoformat("0001-01-01")


class DatabaseDown(Exception):
    """The database does not answer, or cannot be read."""


class StayKey(NamedTuple):
    """A stay within a stream."""

    pat_id: int
    admitted: date


class Position(NamedTuple):
    """The last stored message of one partition."""

    stream: str
    part: int
    seq: int
    committed_at: datetime


class Vital(NamedTuple):
    """The latest of one parameter of a stay; n readings so far."""

    n: int
    first_at: datetime
    value: float
    at: datetime


class Stay(NamedTuple):
    """A stay as `stays` has it. Age in years."""

    key: StayKey
    age: float | None
    discharged: date | None


class Reading(NamedTuple):
    """A reading and what the champion said to it; `predicted` tells whether it was asked."""

    seq: int
    at: datetime
    parameter: str
    value: float
    predicted: bool
    probability: float | None
    reason: str | None


class Prediction(NamedTuple):
    """A prediction with what it was made from."""

    model: str
    version: str
    at: datetime
    features: dict[str, float | None]
    probability: float | None
    reason: str | None


class Rejected(NamedTuple):
    """A message that could not be used. `seq` is its place in the stream."""

    seq: int
    reason: str
    message: str


POSITIONS = "SELECT stream, part, seq, committed_at FROM positions"

CHAMPION = "SELECT model FROM models WHERE role = 'champion' ORDER BY seen_at DESC LIMIT 1"

# A late row is not the newest by time; a hundred rows hold more than an hour's worth of those.
NEWEST = """
SELECT MAX(measured_at) FROM (
    SELECT measured_at FROM readings WHERE stream = ? ORDER BY seq DESC LIMIT 100
) AS newest"""

WARD = f"""
SELECT s.pat_id, s.date_admission, s.age, v.parameter, v.n, v.first_at, v.last_value, v.last_at
FROM (
    SELECT stream, pat_id, date_admission, age FROM stays
    WHERE stream = ? AND date_discharge IS NULL
    ORDER BY date_admission DESC, pat_id DESC LIMIT {WARD_LIMIT + 1}
) AS s
LEFT JOIN vitals v
    ON v.pat_id = s.pat_id AND v.date_admission = s.date_admission AND v.stream = s.stream"""

DISCHARGED = f"""
SELECT pat_id, date_admission, age, date_discharge FROM stays
WHERE stream = ? AND date_discharge IS NOT NULL
ORDER BY date_discharge DESC, date_admission DESC, pat_id DESC LIMIT {DISCHARGED_LIMIT}"""

STAYS_OF = """
SELECT pat_id, date_admission, age, date_discharge FROM stays
WHERE pat_id = ? AND stream = ? ORDER BY date_admission DESC"""

VITALS_OF = """
SELECT v.parameter, v.n, v.first_at, v.last_value, v.last_at FROM vitals v
WHERE pat_id = ? AND date_admission = ? AND stream = ?"""

# Newest first, so that the limit leaves out the oldest.
READINGS = f"""
SELECT r.seq, r.measured_at, r.parameter, r.value, p.model, p.probability, p.reason
FROM readings r
LEFT JOIN predictions p ON p.stream = r.stream AND p.seq = r.seq AND p.model = ?
WHERE r.pat_id = ? AND r.date_admission = ? AND r.measured_at > ? AND r.stream = ?
ORDER BY r.measured_at DESC, r.seq DESC LIMIT {STAY_LIMIT}"""

PREDICTION = """
SELECT model, version, measured_at, features, probability, reason FROM predictions
WHERE stream = ? AND seq = ? AND model = ?"""

REJECTED_OF = f"""
SELECT seq, reason, message FROM rejected
WHERE pat_id = ? AND stream = ? ORDER BY seq DESC LIMIT {REJECTED_LIMIT}"""

REJECTED_AFTER = """
SELECT seq, reason FROM rejected WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""

PENDING = f"""
SELECT COUNT(*) FROM (
    SELECT 1 FROM pending WHERE stream = ? LIMIT {PENDING_LIMIT + 1}
) AS waiting"""


class Connection(Protocol):
    """A connection to either kind of database, that may be told to read."""

    def rows(self, sql: str, arguments: Sequence[object] = ()) -> list[Row]:
        """`?` in the SQL stands for an argument."""

    def close(self) -> None: ...


class Sqlite:
    """Reads an SQLite file beside the program that writes it."""

    snapshot = ("BEGIN", "COMMIT")

    def __init__(self, url: str) -> None:
        path = Path(unquote(url.removeprefix("sqlite:///")))
        if not path.exists():
            raise DatabaseDown(f"there is no file {path} yet")
        self.connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2, isolation_level=None
        )

    def rows(self, sql: str, arguments: Sequence[object] = ()) -> list[Row]:
        return self.connection.execute(sql, tuple(map(_text, arguments))).fetchall()

    def close(self) -> None:
        self.connection.close()


class Mysql:
    """Reads MySQL or MariaDB."""

    snapshot = ("START TRANSACTION READ ONLY", "COMMIT")

    def __init__(self, url: str, password: str | None) -> None:
        parts = urlsplit(url)
        self.connection = mysql.connector.connect(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=password if password is not None else unquote(parts.password or ""),
            database=parts.path.lstrip("/"),
            autocommit=True,
            connection_timeout=3,
            read_timeout=10,
        )

    def rows(self, sql: str, arguments: Sequence[object] = ()) -> list[Row]:
        cursor = self.connection.cursor()
        try:
            cursor.execute(sql.replace("?", "%s"), tuple(arguments))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []  # type: ignore[return-value]
        finally:
            cursor.close()

    def close(self) -> None:
        self.connection.close()


class Database:
    """The dashboard's questions. Use it from one thread; it reconnects by itself."""

    def __init__(self, url: str, password: str | None = None) -> None:
        self._url, self._password = url, password
        self._connection: Sqlite | Mysql | None = None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read inside is of one moment. Raises DatabaseDown."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            begin, end = self._connection.snapshot
            self._connection.rows(begin)
            yield
            self._connection.rows(end)
        except (sqlite3.Error, mysql.connector.Error, OSError) as error:
            self.close()
            raise DatabaseDown(_without_address(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except (sqlite3.Error, mysql.connector.Error, OSError):
                return  # It was broken; that is why it goes.

    def _connect(self) -> Sqlite | Mysql:
        if self._url.startswith("sqlite:"):
            return Sqlite(self._url)
        return Mysql(self._url, self._password)

    def _rows(self, sql: str, *arguments: object) -> list[Row]:
        assert self._connection is not None, "read inside a snapshot"
        return self._connection.rows(sql, arguments)

    def positions(self) -> list[Position]:
        """The positions of the stream that was written last; none before its first batch."""
        found = [Position(s, part, seq, _moment(at)) for s, part, seq, at in self._rows(POSITIONS)]
        if not found:
            return []
        current = max(found, key=lambda position: position.committed_at).stream
        return [position for position in found if position.stream == current]

    def champion(self) -> str | None:
        """The name of the model that the tool last knew as champion."""
        found = self._rows(CHAMPION)
        return str(found[0][0]) if found else None

    def newest(self, stream: str) -> datetime | None:
        """The time of the newest stored readings."""
        at = self._rows(NEWEST, stream)[0][0]
        return None if at is None else _moment(at)

    def ward(self, stream: str) -> dict[StayKey, tuple[Stay, dict[str, Vital]]]:
        """Every stay without a discharge, and its latest vitals."""
        found: dict[StayKey, tuple[Stay, dict[str, Vital]]] = {}
        for pat_id, admitted, age, parameter, *vital in self._rows(WARD, stream):
            key = StayKey(pat_id, _day(admitted))
            _, vitals = found.setdefault(key, (Stay(key, age, None), {}))
            if parameter is not None:
                vitals[parameter] = _vital(vital)
        return found

    def discharged(self, stream: str) -> list[Stay]:
        """The latest discharges, newest first."""
        return [_stay(row) for row in self._rows(DISCHARGED, stream)]

    def stays_of(self, stream: str, pat_id: int) -> list[Stay]:
        """A patient's stays, newest first."""
        return [_stay(row) for row in self._rows(STAYS_OF, pat_id, stream)]

    def vitals_of(self, stream: str, key: StayKey) -> dict[str, Vital]:
        rows = self._rows(VITALS_OF, *key, stream)
        return {parameter: _vital(vital) for parameter, *vital in rows}

    def readings(
        self, stream: str, key: StayKey, model: str | None, after: datetime = BEFORE_ALL
    ) -> list[Reading]:
        """A stay's readings later than `after`, in order of time."""
        rows = self._rows(READINGS, model or "", *key, after, stream)
        return [
            Reading(seq, _moment(at), parameter, value, predicted is not None, probability, reason)
            for seq, at, parameter, value, predicted, probability, reason in reversed(rows)
        ]

    def prediction(self, stream: str, seq: int, model: str) -> Prediction | None:
        for name, version, at, features, probability, reason in self._rows(
            PREDICTION, stream, seq, model
        ):
            known = json.loads(features)
            return Prediction(name, version, _moment(at), known, probability, reason)
        return None

    def rejected_of(self, stream: str, pat_id: int) -> list[Rejected]:
        """A patient's newest rejected messages, newest first."""
        return [Rejected(*row) for row in self._rows(REJECTED_OF, pat_id, stream)]

    def rejected_after(self, stream: str, seq: int, to: int, limit: int) -> list[tuple[int, str]]:
        """Place and reason of the next rejected messages after `seq`."""
        rows = self._rows(REJECTED_AFTER, stream, seq, to, limit)
        return [(place, reason) for place, reason in rows]

    def pending(self, stream: str) -> int:
        """Predictions that wait for their model; counted up to PENDING_LIMIT + 1."""
        return int(self._rows(PENDING, stream)[0][0])


def _vital(row: Sequence[Any]) -> Vital:
    n, first_at, value, at = row
    return Vital(n, _moment(first_at), value, _moment(at))


def _stay(row: Row) -> Stay:
    pat_id, admitted, age, discharged = row
    key = StayKey(pat_id, _day(admitted))
    return Stay(key, age, None if discharged is None else _day(discharged))


def _moment(value: str | datetime) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _day(value: str | date) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _text(value: object) -> object:
    """SQLite has no dates: the tables hold them as ISO text, with a space before the hour."""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return value.isoformat() if isinstance(value, date) else value


def hours(start: datetime | date, to: datetime) -> float:
    """Hours from one moment (or a day's midnight) to another."""
    if not isinstance(start, datetime):
        start = datetime.combine(start, time())
    return (to - start) / timedelta(hours=1)


def _without_address(error: Exception) -> str:
    """The reason alone: a page need not tell where the database lives."""
    text = error.msg if isinstance(error, mysql.connector.Error) and error.msg else str(error)
    return re.sub(r"'[^']*@?[^']*:\d+'|'[^']*'@'[^']*'", "", str(text)).strip()
