"""SQLite."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from tool.database.errors import DatabaseError, PermanentFailure, Unavailable
from tool.database.session import Row, Session
from wire.database import sqlite_path
from wire.tables import KEYS

# Errors that the rows cause. The file or another program that uses it causes all other errors.
ROWS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError)


class SQLiteSession(Session):
    """A connection to an SQLite file."""

    placeholder = "?"
    errors = (sqlite3.Error, OSError, OverflowError)
    duplicate_key = sqlite3.IntegrityError

    def begin(self, cursor: Any) -> None:
        # A transaction that starts with a read cannot always be upgraded to a write transaction.
        cursor.execute("BEGIN IMMEDIATE")

    def begin_snapshot(self, cursor: Any) -> None:
        pass  # no other connection can write after `begin`

    def translate(self, error: Exception) -> DatabaseError:
        text = f"SQLite {sqlite_path(self.url)}: {error}"
        # A damaged file ("database disk image is malformed", "file is not a database") raises a
        # plain DatabaseError, which is not in ROWS, so it counts as unavailable.
        return PermanentFailure(text) if isinstance(error, ROWS) else Unavailable(text)

    def tables(self, cursor: Any) -> set[str]:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in cursor.fetchall()}

    def ambiguous_column(self, cursor: Any) -> str | None:
        return None  # SQLite compares bytes unless a table specifies another collation.

    def upsert(self, table: str, values: Sequence[str], newer: str | None) -> str:
        keys = ", ".join(KEYS[table])
        sets = ", ".join(f"`{column}` = excluded.`{column}`" for column in values)
        only = f" WHERE excluded.`{newer}` > {table}.`{newer}`" if newer else ""
        return f" ON CONFLICT ({keys}) DO UPDATE SET {sets}{only}"

    def write(self, cursor: Any, insert: str, rows: Sequence[Row], upsert: str) -> None:
        marks = ", ".join("?" * len(rows[0]))
        cursor.executemany(f"{insert} VALUES ({marks}){upsert}", rows)
