"""The SQLite file of users, failures, ended sessions and the audit log."""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    name TEXT PRIMARY KEY, password TEXT NOT NULL, added_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS failures (
    at REAL NOT NULL, user TEXT NOT NULL, address TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS ended (session TEXT PRIMARY KEY, until REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, user TEXT NOT NULL, address TEXT NOT NULL,
    action TEXT NOT NULL, patient TEXT NOT NULL, uri TEXT NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS audit_keeps_rows BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_keeps_values BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER IF NOT EXISTS audit_replaces_nothing BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
"""


class Entry(NamedTuple):
    """A row of the audit log. patient: empty if the action concerns no patient."""

    at: str
    user: str
    address: str
    action: str
    patient: str
    uri: str


class Store:
    """The open file. Its methods raise sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(SCHEMA)
        self._db.execute(
            "INSERT OR IGNORE INTO keys VALUES ('session', ?)", (secrets.token_hex(32),)
        )

    def close(self) -> None:
        self._db.close()

    @property
    def session_key(self) -> str:
        """The secret that signs the sessions. It is created at the first start."""
        [(key,)] = self._db.execute("SELECT value FROM keys WHERE name = 'session'")
        return str(key)

    def users(self) -> list[str]:
        return [name for (name,) in self._db.execute("SELECT name FROM users ORDER BY name")]

    def password(self, user: str) -> str | None:
        """The hash of a user's password; None if the user is unknown."""
        row = self._db.execute("SELECT password FROM users WHERE name = ?", (user,)).fetchone()
        return row and str(row[0])

    def set_password(self, user: str, password: str) -> None:
        """Adds a user, or changes the password of a user. password: its hash."""
        self._db.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?)", (user, password, _now()))

    def remove(self, user: str) -> bool:
        """Removes a user; returns False if there was no such user."""
        return self._db.execute("DELETE FROM users WHERE name = ?", (user,)).rowcount > 0

    def count_attempt(self, user: str, address: str) -> None:
        """Counts an attempt as a failure; `forget_failures` resets the count."""
        self._db.execute("INSERT INTO failures VALUES (?, ?, ?)", (time.time(), user, address))

    def forget_failures(self, user: str) -> None:
        self._db.execute("DELETE FROM failures WHERE user = ?", (user,))

    def failures(self, column: str, value: str, since: float) -> list[float]:
        """The times of the failures of a user or an address, oldest first, from the time `since`
        on. Deletes all older failures. Times are in seconds since 1970.

        column: `user` or `address`. value: that user or address.
        """
        self._db.execute("DELETE FROM failures WHERE at < ?", (since,))
        found = self._db.execute(
            f"SELECT at FROM failures WHERE {column} = ? ORDER BY at", (value,)
        )
        return [at for (at,) in found]

    def end_session(self, session: str, until: float) -> None:
        """Marks a session as ended until it expires; deletes the marks of expired sessions."""
        self._db.execute("DELETE FROM ended WHERE until < ?", (time.time(),))
        self._db.execute("INSERT OR IGNORE INTO ended VALUES (?, ?)", (session, until))

    def has_ended(self, session: str) -> bool:
        found = self._db.execute("SELECT 1 FROM ended WHERE session = ?", (session,))
        return found.fetchone() is not None

    def record(
        self, user: str, address: str, action: str, patient: str = "", uri: str = ""
    ) -> None:
        """Appends a row to the audit log; it is on disk when this returns."""
        self._db.execute(
            "INSERT INTO audit (at, user, address, action, patient, uri) VALUES (?, ?, ?, ?, ?, ?)",
            (_now(), user, address, action, patient, uri),
        )

    def audit(self) -> Iterator[Entry]:
        """Yields all rows of the audit log, oldest first."""
        rows = self._db.execute(
            "SELECT at, user, address, action, patient, uri FROM audit ORDER BY id"
        )
        return map(Entry._make, rows)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
