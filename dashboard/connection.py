"""A read-only database connection, which reconnects by itself."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dashboard.faults import fault
from wire import database

Row = tuple[Any, ...]


class DatabaseDown(Exception):
    """The database does not answer or cannot be read. The text continues “The database”."""


class Reader:
    """Runs queries in snapshots. Not thread-safe."""

    def __init__(self, url: str, password: str = "") -> None:
        self._url, self._password = url, password
        self._connection: database.Connection | None = None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Opens a transaction in which all reads see the same state. Raises DatabaseDown."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            sqlite = database.is_sqlite(self._url)
            self._run("BEGIN" if sqlite else "START TRANSACTION READ ONLY")
            yield
            self._run("COMMIT")
        except database.ERRORS as error:
            self.close()
            raise DatabaseDown(fault(str(error))) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection, which may already be broken."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*database.ERRORS):
                connection.close()

    def _connect(self) -> database.Connection:
        if database.is_sqlite(self._url) and not database.sqlite_path(self._url).exists():
            raise DatabaseDown("does not exist yet")
        return database.connect(self._url, self._password, read_only=True)

    def rows(self, sql: str, *arguments: object) -> list[Row]:
        """The rows of a query; `?` stands for an argument."""
        return self._run(sql.replace("?", database.placeholder(self._url)), *arguments)

    def _run(self, sql: str, *arguments: object) -> list[Row]:
        assert self._connection is not None, "rows() needs a snapshot"
        cursor = self._connection.cursor()
        try:
            cursor.execute(sql, arguments)
            return cursor.fetchall() if cursor.description else []
        finally:
            cursor.close()
