"""Deletes stays and all their data. The positions are kept, so that no message is read again."""

import logging
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Worker

from tool.database.session import Session
from tool.times import text_of
from wire.database import is_sqlite, sqlite_path
from wire.messages import ordinal
from wire.tables import KEYS, TABLES, columns

log = logging.getLogger("tool")

# Readings per transaction. Short transactions keep the undo log small, because the disk may be
# nearly full.
PORTION = 1_000
# Tables without an index on the stay. Their rows are found by the reading's message number.
BY_READING = tuple(
    table
    for table in TABLES
    if KEYS[table][:2] == ("stream", "seq")
    and (table == "predictions" or "pat_id" not in columns(table))
)
BY_STAY = tuple(
    table
    for table in TABLES
    if {"stream", "pat_id", "date_admission"} <= set(columns(table))
    and table not in (*BY_READING, "stays", "readings", "withdrawn")
)
# Tables whose rows may belong to no stay in table `stays`, such as the outcome of an unknown stay.
WITHOUT_STAY = tuple(
    table
    for table in TABLES
    if KEYS[table][:2] == ("stream", "seq") and table not in ("readings", "predictions")
)
# The time of their rows on the stream's clock.
EXPIRING = {"outcomes": "happened_at", "acknowledgements": "acknowledged_at"}
STAY = "stream = ? AND pat_id = ? AND date_admission = ?"
# An alarm may be cleared by a discharge, so its message need not be a reading.
UNSENT = """
DELETE FROM outbox WHERE stream = ? AND EXISTS (SELECT 1 FROM alarms
    WHERE alarms.stream = outbox.stream AND alarms.seq = outbox.seq
    AND alarms.model = outbox.model AND alarms.version = outbox.version
    AND alarms.pat_id = ? AND alarms.date_admission = ?)"""

Stay = tuple[str, int, str]


class ToolRuns(Exception):
    """A tool is running, or it is unknown whether one is."""


def forget(session: Session, where: str, *values: str) -> Counter[str]:
    """Deletes the stays that match the SQL condition `where`; returns the number of deleted rows
    per table. A stay's row in `stays` is deleted last, so the next run completes an interrupted
    run. Raises DatabaseError.
    """
    done: Counter[str] = Counter()
    for stay in _stays(session, where, values):
        while _forget_readings(session, stay, "readings", "seq", done):
            pass
        while _forget_readings(session, stay, "withdrawn", "of_seq", done):
            pass
        with session.writing() as cursor:
            session.execute(cursor, UNSENT, stay)
            done["outbox"] += cursor.rowcount
            for table in (*BY_STAY, "stays"):
                session.execute(cursor, f"DELETE FROM {table} WHERE {STAY}", stay)
                done[table] += cursor.rowcount
            # A rejected message has a patient number but no stay, so it is deleted with the
            # patient's last stay.
            session.execute(
                cursor,
                "DELETE FROM rejected WHERE pat_id = ? AND stream = ? AND NOT EXISTS"
                " (SELECT 1 FROM stays WHERE stays.pat_id = rejected.pat_id"
                " AND stays.stream = rejected.stream)",
                (stay[1], stay[0]),
            )
            done["rejected"] += cursor.rowcount
        log.info("forgot the stay of patient %d from %s, stream %s", stay[1], stay[2], stay[0])
    return done


def forget_expired(session: Session, days: int) -> Counter[str]:
    """Deletes stays that were discharged more than `days` days before the last reading of their
    stream, rows of unknown stays that are as old, and messages that were rejected more than `days`
    days ago; returns the number of deleted rows per table. A patient's rejected messages stay until
    the patient's last stay is deleted.

    The stream's own clock is used, because a replay's times may be years ago. Rejected messages
    have no such time. Raises DatabaseError.
    """
    with session.reading() as cursor:
        session.execute(cursor, "SELECT stream, MAX(last_at) FROM vitals GROUP BY stream")
        newest = [(stream, str(last)) for stream, last in cursor.fetchall()]
    done: Counter[str] = Counter()
    for stream, last in newest:
        before = text_of(ordinal(last[:10]), -24 * days)[:10]
        done += forget(session, "stream = ? AND date_discharge < ?", stream, before)
        for table, column in EXPIRING.items():
            where = f"{column} < ? AND {_without_stay(table)}"
            done[table] += _forget_rows(session, stream, table, where, before)
    with session.reading() as cursor:
        session.execute(cursor, "SELECT DISTINCT stream FROM rejected")
        streams = [stream for (stream,) in cursor.fetchall()]
    before = (datetime.now(UTC) - timedelta(days)).strftime("%Y-%m-%d %H:%M:%S")
    for stream in streams:
        where = f"rejected_at < ? AND {_without_stay('rejected')}"
        done["rejected"] += _forget_rows(session, stream, "rejected", where, before)
    return done


def forget_rest(session: Session, stream: str) -> Counter[str]:
    """Deletes the rows of a stream that belong to no stay, such as rejected messages without a
    patient and outcomes of unknown stays; returns their number per table. Raises DatabaseError.
    """
    return Counter({table: _forget_rows(session, stream, table) for table in WITHOUT_STAY})


def _without_stay(table: str) -> str:
    """The SQL condition that the table `stays` has no stay of a row; for a rejected message, no
    stay of its patient."""
    keys = ["stream", "pat_id", "date_admission"]
    same = " AND ".join(f"stays.{key} = {table}.{key}" for key in keys if key in columns(table))
    return f"NOT EXISTS (SELECT 1 FROM stays WHERE {same})"


def _forget_rows(
    session: Session, stream: str, table: str, where: str = "1 = 1", *values: str
) -> int:
    """Deletes the rows of a stream that match the SQL condition, in portions; returns their
    number."""
    done = 0
    select = f"SELECT seq FROM {table} WHERE stream = ? AND {where} LIMIT ?"
    while True:
        with session.writing() as cursor:
            session.execute(cursor, select, (stream, *values, PORTION))
            found = [seq for (seq,) in cursor.fetchall()]
            if not found:
                return done
            done += _delete(session, cursor, table, "seq", stream, found)


def refuse_beside_tool(redis: Redis, session: Session) -> None:
    """Raises ToolRuns if a tool is running or another program has the SQLite file open. A running
    tool keeps statistics in memory, and would store those of deleted stays again. With MySQL, also
    raises ToolRuns if Redis does not answer.
    """
    if is_sqlite(session.url):
        _refuse_beside_others(session)
    try:
        # A killed worker stays in RQ's list, but its key expires.
        keys = Worker.all_keys(connection=redis)
        number = redis.exists(*keys) if keys else 0
    except RedisError as error:
        if not is_sqlite(session.url):
            raise ToolRuns(
                f"Redis does not answer, so it is not known whether the tool is stopped: {error}"
            ) from None
    else:
        if number:
            raise ToolRuns(
                f"stop the tool first; running workers: {number} (a killed one counts for up to"
                " 90 s)"
            )


def give_back_space(session: Session) -> None:
    """Returns the space of deleted rows to the disk; otherwise the database keeps it for new rows.
    Raises DatabaseError if this fails, for example because there is no space for the copy of a
    table.
    """
    with session.unlimited() as cursor:
        if is_sqlite(session.url):
            cursor.execute("VACUUM")
        for table in () if is_sqlite(session.url) else TABLES:
            cursor.execute(f"OPTIMIZE TABLE {table}")
            cursor.fetchall()


def _refuse_beside_others(session: Session) -> None:
    """Raises ToolRuns if another program has the SQLite file open."""
    with closing(session.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            # This needs exclusive access: in WAL mode, each open connection holds a lock.
            cursor.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            raise ToolRuns(
                f"stop the pipeline first: {sqlite_path(session.url)} is in use ({error})"
            ) from None


def _stays(session: Session, where: str, values: Sequence[str]) -> list[Stay]:
    with session.reading() as cursor:
        session.execute(
            cursor, f"SELECT stream, pat_id, date_admission FROM stays WHERE {where}", values
        )
        return [(stream, int(pat), str(admission)) for stream, pat, admission in cursor.fetchall()]


def _forget_readings(
    session: Session, stay: Stay, table: str, column: str, done: Counter[str]
) -> int:
    """Deletes a chunk of the stay's rows in `table`, and all rows derived from these readings;
    returns the number of these readings."""
    with session.writing() as cursor:
        session.execute(
            cursor, f"SELECT {column} FROM {table} WHERE {STAY} LIMIT ?", (*stay, PORTION)
        )
        found = [seq for (seq,) in cursor.fetchall()]
        for other, key in (*((name, "seq") for name in BY_READING), (table, column)):
            done[other] += _delete(session, cursor, other, key, stay[0], found)
    return len(found)


def _delete(
    session: Session, cursor: Any, table: str, key: str, stream: str, numbers: list[int]
) -> int:
    if not numbers:
        return 0
    marks = ", ".join("?" * len(numbers))
    session.execute(
        cursor,
        f"DELETE FROM {table} WHERE stream = ? AND {key} IN ({marks})",
        (stream, *numbers),
    )
    return int(cursor.rowcount)
