"""Stores the models in use in a MySQL table, so that all replicas of the model API have one
champion."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mysql.connector import IntegrityError, errorcode

from modelapi.champion import StateError
from modelapi.settings import Settings
from modelapi.states import FIELDS, Row, StateFile, States
from wire.database import ERRORS, Connection, connect
from wire.settings import SecretFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS model_changes (
    id     BIGINT       NOT NULL PRIMARY KEY,
    at     VARCHAR(32)  NOT NULL,
    actor  VARCHAR(255) NOT NULL,
    action VARCHAR(16)  NOT NULL,
    model  VARCHAR(255) NOT NULL,
    state  TEXT         NOT NULL
)"""


def open_states(settings: Settings) -> States:
    """Opens the table if a database is configured, or else the file."""
    default = Path(settings.models) / "default.json"
    if settings.model_state_url:
        return StateTable(settings.model_state_url, settings.model_state_password_file, default)
    return StateFile(settings.model_state, default)


class StateTable(States):
    """The states in table `model_changes`, which this class creates. Thread-safe."""

    def __init__(self, url: str, password_file: SecretFile, default: Path) -> None:
        super().__init__(default)
        self._url = url
        self._password_file = password_file
        self._lock = threading.Lock()
        self._reading: Connection | None = None

    def rows(self, order: str) -> list[Row]:
        with self._lock:
            try:
                if self._reading is None:
                    self._reading = self._connect(read_only=True)
                cursor = self._reading.cursor()
                cursor.execute(f"SELECT {FIELDS} FROM model_changes {order}")
                found: list[Row] = cursor.fetchall()
                cursor.close()
            except ERRORS as error:
                self._close()
                if getattr(error, "errno", None) == errorcode.ER_NO_SUCH_TABLE:
                    return []
                raise self._failure(error) from None
            return found

    @contextmanager
    def appending(self) -> Iterator[Callable[[Row], object]]:
        try:
            with closing(self._connect()) as connection:
                cursor = connection.cursor()
                cursor.execute(_SCHEMA)
                insert = f"INSERT INTO model_changes ({FIELDS}) VALUES (%s, %s, %s, %s, %s, %s)"
                yield lambda row: cursor.execute(insert, row)
                connection.commit()
        except IntegrityError:
            # The id is one more than the id of the change from which this change was computed.
            raise StateError(
                "another change was made at the same time; check the state and retry"
            ) from None
        except ERRORS as error:
            raise self._failure(error) from None

    def _connect(self, **options: Any) -> Connection:
        return connect(self._url, self._password_file.secret, timeout=3, **options)

    def _close(self) -> None:
        connection, self._reading = self._reading, None
        if connection is not None:
            with suppress(*ERRORS):
                connection.close()

    def _failure(self, error: Exception) -> StateError:
        return StateError(f"MySQL {urlsplit(self._url).hostname}: {error}")
