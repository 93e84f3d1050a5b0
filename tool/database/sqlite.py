"""SQLite."""

import sqlite3
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from tool.database.errors import DatabaseError, PermanentFailure, Unavailable
from tool.database.session import Row, Session
from wire.database import sqlite_path
from wire.tables import KEYS

# Errors that the rows cause. The file or another program that uses it causes all other errors.
ROWS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError)
# Rows per statement. One row per statement takes a third longer; more than 20 rows gain nothing.
ROWS_PER_STATEMENT = 20
# Seconds between two attempts to start a transaction that writes, and the limit for all of them.
PAUSE = 0.001
WAIT = 30.0


class SQLiteSession(Session):
    """A connection to an SQLite file."""

    placeholder = "?"
    errors = (sqlite3.Error, OSError, OverflowError)
    duplicate_key = sqlite3.IntegrityError

    def begin(self, cursor: Any) -> None:
        # SQLite's own pauses grow to 100 ms, so a worker could wait while nobody writes.
        cursor.execute("PRAGMA busy_timeout = 0")
        deadline = time.monotonic() + WAIT
        while not _begun(cursor, deadline):
            time.sleep(PAUSE)
        cursor.execute(f"PRAGMA busy_timeout = {WAIT * 1000:.0f}")

    def begin_reading(self, cursor: Any) -> None:
        cursor.execute("BEGIN")  # in WAL mode, all statements read the same state of the tables

    def begin_snapshot(self, cursor: Any) -> None:
        self.begin_reading(cursor)

    def commit(self) -> None:
        connection: Any = self._connection
        connection.commit()

    def translate(self, error: Exception) -> DatabaseError:
        text = f"SQLite {sqlite_path(self.url)}: {error}"
        # A damaged file ("database disk image is malformed", "file is not a database") raises a
        # plain DatabaseError, which is not in ROWS, so it counts as unavailable.
        return PermanentFailure(text) if isinstance(error, ROWS) else Unavailable(text)

    def tables(self, cursor: Any) -> set[str]:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in cursor.fetchall()}

    def defect(self, cursor: Any) -> str | None:
        return None  # SQLite compares bytes unless a table specifies another collation.

    def upsert(self, table: str, values: Sequence[str], newer: str | None) -> str:
        keys = ", ".join(KEYS[table])
        sets = ", ".join(f"`{column}` = excluded.`{column}`" for column in values)
        only = f" WHERE excluded.`{newer}` > {table}.`{newer}`" if newer else ""
        return f" ON CONFLICT ({keys}) DO UPDATE SET {sets}{only}"

    def write(self, cursor: Any, insert: str, rows: Sequence[Row], upsert: str) -> None:
        marks = f"({', '.join('?' * len(rows[0]))})"
        several = ", ".join([marks] * ROWS_PER_STATEMENT)
        whole = len(rows) - len(rows) % ROWS_PER_STATEMENT
        starts = range(0, whole, ROWS_PER_STATEMENT)
        cursor.executemany(
            f"{insert} VALUES {several}{upsert}",
            [tuple(chain.from_iterable(rows[i : i + ROWS_PER_STATEMENT])) for i in starts],
        )
        cursor.executemany(f"{insert} VALUES {marks}{upsert}", rows[whole:])


def _begun(cursor: Any, deadline: float) -> bool:
    """Starts a transaction that writes; returns False if another connection is writing."""
    try:
        # A transaction that starts with a read cannot always be upgraded to a write transaction.
        cursor.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
            raise
        return False
    return True
