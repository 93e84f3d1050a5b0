"""Reads the MySQL database of a stack."""

from collections.abc import Callable
from typing import Any

from wire.database import connect


class Reader:
    """Runs queries on one connection, and opens a new one after an error.

    url: returns the address, which may change when the server restarts.
    """

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url
        self._connection: Any = None

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Returns the rows. Raises any of wire.database.ERRORS if the database does not answer."""
        try:
            if self._connection is None:
                self._connection = connect(self._url(), read_only=True, timeout=5)
            cursor = self._connection.cursor()
            cursor.execute(statement)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            cursor.close()
            return rows
        except BaseException:
            self._connection = None
            raise
