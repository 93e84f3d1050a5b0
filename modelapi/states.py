"""Stores which models are in use: an append-only table of changes, in a file or in MySQL.

The last row is the state and all rows are the audit log, so the two cannot differ. Before the first
change, the state is `models/default.json`.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from modelapi.champion import Change, State, StateError

Row = tuple[Any, ...]

FIELDS = "id, at, actor, action, model, state"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     TEXT NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,  -- promote, rollback, shadow, unshadow, load, unload, alarm
    model  TEXT NOT NULL,
    state  TEXT NOT NULL   -- JSON: champion, shadows, unloaded, alarms after the change
)
"""


class States:
    """The state and its history. Any number of processes may use them."""

    def __init__(self, default: Path) -> None:
        self.default = default

    def rows(self, order: str) -> list[Row]:
        """The rows of the changes in this SQL order; none before the first change. Raises
        StateError."""
        raise NotImplementedError

    def appending(self) -> AbstractContextManager[Callable[[Row], object]]:
        """Yields a function that adds a change. Raises StateError, for example if the id is already
        taken."""
        raise NotImplementedError

    def read(self) -> tuple[int, State]:
        """The number of the last change (0: none yet) and the state."""
        last = self._changes("ORDER BY id DESC LIMIT 1")
        return (last[0].id, last[0].state) if last else (0, self._default())

    def history(self) -> list[Change]:
        """All changes, oldest first."""
        return self._changes("ORDER BY id")

    def change(
        self, action: str, model: str, actor: str, transition: Callable[[State], State]
    ) -> State:
        """Applies `transition` to the current state and records the change. Raises StateError, for
        example if another change was made at the same time, and the errors of `transition`."""
        with self.appending() as append:
            number, state = self.read()
            state = transition(state)
            append(_row(number + 1, actor, action, model, state))
            return state

    def rollback(self, actor: str, verify: Callable[[State], object]) -> State:
        """Restores the models that were in use before the last promotion that was not rolled back.

        Raises StateError if there is none, and the errors of `verify`, which gets the new state.
        """
        with self.appending() as append:
            before: list[State] = []
            number, state = 0, self._default()
            for change in self.history():
                if change.action == "promote":
                    before.append(state)
                elif change.action == "rollback":
                    before.pop()
                number, state = change.id, change.state
            if not before:
                raise StateError("there is no promotion to roll back")
            # A rollback only changes the models in use, not their alarm rules.
            previous = replace(before[-1], alarms=state.alarms)
            verify(previous)
            append(_row(number + 1, actor, "rollback", str(previous.champion), previous))
            return previous

    def _changes(self, order: str) -> list[Change]:
        return [
            Change(number, at, actor, action, model, msgspec.json.decode(state, type=State))
            for number, at, actor, action, model, state in self.rows(order)
        ]

    def _default(self) -> State:
        try:
            return msgspec.json.decode(self.default.read_bytes(), type=State)
        except OSError as error:
            raise StateError(f"{self.default}: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError(f"{self.default}: {error}") from None


def _row(number: int, actor: str, action: str, model: str, state: State) -> Row:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return (number, at, actor, action, model, msgspec.json.encode(state).decode())


class StateFile(States):
    """The states in an SQLite file, for all processes of one host."""

    def __init__(self, path: Path, default: Path) -> None:
        super().__init__(default)
        self.path = path

    def rows(self, order: str) -> list[Row]:
        if not self.path.exists():
            return []
        # Each call opens a new connection, which is cheap and works even if the file was replaced.
        try:
            with closing(sqlite3.connect(self.path, timeout=5)) as connection:
                return connection.execute(f"SELECT {FIELDS} FROM changes {order}").fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return []
            raise StateError(f"{self.path}: {error}") from None

    @contextmanager
    def appending(self) -> Iterator[Callable[[Row], object]]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=5, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"{self.path}: {error}") from None
        insert = f"INSERT INTO changes ({FIELDS}) VALUES (?, ?, ?, ?, ?, ?)"
        with closing(connection):
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SCHEMA)
                yield lambda row: connection.execute(insert, row)
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StateError(f"{self.path}: {error}") from None
