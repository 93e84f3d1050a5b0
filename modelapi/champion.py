"""Which models are in use: one SQLite file, an append-only table of changes.

The last row is the state and all of them are the audit, so the two cannot differ.
Until the first change, `models/default.json` holds.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from modelapi.artifact import Ref
from wire.alarms import Policy

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


class StateError(Exception):
    """A change that cannot be made, or a state that cannot be read; one line why."""


@dataclass(frozen=True)
class State:
    """champion: its predictions are the patient's. shadows: run beside it on every reading.
    unloaded: names of models that are not served. alarms: by `model/version`, the rules that
    replace those of the manifests.
    """

    champion: Ref
    shadows: tuple[Ref, ...] = ()
    unloaded: tuple[str, ...] = ()
    alarms: dict[str, Policy] = field(default_factory=dict)

    @property
    def active(self) -> tuple[Ref, ...]:
        return (self.champion, *self.shadows)


@dataclass(frozen=True)
class Change:
    """A row of the audit; state is what held from then on."""

    id: int
    at: str
    actor: str
    action: str
    model: str
    state: State


def promote(state: State, ref: Ref) -> State:
    """Make a version the champion. The old one goes on as a shadow, so that what it says
    can be compared.
    """
    rest = [other for other in state.active if other != ref]
    return replace(state, champion=ref, shadows=tuple(rest), unloaded=_less(state, ref.model))


def shadow(state: State, ref: Ref) -> State:
    """Run a version in shadow, also beside other versions of the same model."""
    if ref == state.champion:
        raise StateError(f"{ref} is the champion")
    rest = [other for other in state.shadows if other != ref]
    return replace(state, shadows=(*rest, ref), unloaded=_less(state, ref.model))


def unshadow(state: State, model: str) -> State:
    """End a shadow, NAME/VERSION, or all shadows of a model, NAME."""
    rest = tuple(other for other in state.shadows if model not in (other.model, str(other)))
    if rest == state.shadows:
        raise StateError(f"{model} is not a shadow")
    return replace(state, shadows=rest)


def load(state: State, model: str) -> State:
    """Serve a model again."""
    return replace(state, unloaded=_less(state, model))


def unload(state: State, model: str) -> State:
    """Serve a model no longer; one that is in use stays."""
    if model in [ref.model for ref in state.active]:
        raise StateError(f"{model} is in use; make another the champion, or end its shadow, first")
    return replace(state, unloaded=(*_less(state, model), model))


def set_alarm(state: State, ref: Ref, policy: Policy) -> State:
    """Replaces the alarm rule of a version."""
    return replace(state, alarms={**state.alarms, str(ref): policy})


def _less(state: State, model: str) -> tuple[str, ...]:
    return tuple(name for name in state.unloaded if name != model)


class StateFile:
    """The state and its history on disk; safe for any number of processes."""

    def __init__(self, path: Path, default: Path) -> None:
        self.path = path
        self.default = default

    def read(self) -> tuple[int, State]:
        """Number of the last change (0: none yet) and the state."""
        last = self._rows("ORDER BY id DESC LIMIT 1")
        return (last[0].id, last[0].state) if last else (0, self._default())

    def history(self) -> list[Change]:
        """All changes, oldest first."""
        return self._rows("ORDER BY id")

    def change(
        self, action: str, model: str, actor: str, transition: Callable[[State], State]
    ) -> State:
        """Put `transition` of the present state in force, and on record, in one transaction."""
        with self._writing() as connection:
            return self._append(connection, action, model, actor, transition(self.read()[1]))

    def rollback(self, actor: str, verify: Callable[[State], object]) -> State:
        """Go back to the state before the last promotion that was not rolled back yet,
        unless `verify` raises for it.
        """
        with self._writing() as connection:
            before: list[State] = []
            state = self._default()
            for change in self.history():
                if change.action == "promote":
                    before.append(state)
                elif change.action == "rollback":
                    before.pop()
                state = change.state
            if not before:
                raise StateError("there is no promotion to roll back")
            # A rollback concerns the models in use. Their alarm rules stay.
            previous = replace(before[-1], alarms=state.alarms)
            verify(previous)
            return self._append(connection, "rollback", str(previous.champion), actor, previous)

    def _append(
        self, connection: sqlite3.Connection, action: str, model: str, actor: str, state: State
    ) -> State:
        connection.execute(
            "INSERT INTO changes (at, actor, action, model, state) VALUES (?, ?, ?, ?, ?)",
            (
                datetime.now(UTC).isoformat(timespec="milliseconds"),
                actor,
                action,
                model,
                msgspec.json.encode(state).decode(),
            ),
        )
        return state

    def _default(self) -> State:
        try:
            return msgspec.json.decode(self.default.read_bytes(), type=State)
        except OSError as error:
            raise StateError(f"{self.default}: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise StateError(f"{self.default}: {error}") from None

    def _rows(self, order: str) -> list[Change]:
        if not self.path.exists():
            return []
        # Opened anew each time: cheap, and right also when the file was replaced.
        try:
            with closing(sqlite3.connect(self.path, timeout=5)) as connection:
                rows = connection.execute(
                    f"SELECT id, at, actor, action, model, state FROM changes {order}"
                ).fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return []
            raise StateError(f"{self.path}: {error}") from None
        return [
            Change(number, at, actor, action, model, msgspec.json.decode(state, type=State))
            for number, at, actor, action, model, state in rows
        ]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=5, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise StateError(f"{self.path}: {error}") from None
        with closing(connection):
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SCHEMA)
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StateError(f"{self.path}: {error}") from None
