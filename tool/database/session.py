"""A connection to a database: the part that is the same for MySQL and SQLite."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from tool.database.errors import DatabaseError, Outdated
from tool.database.literals import names
from tool.database.versions import TABLE, VERSIONS
from wire.database import Connection, connect
from wire.tables import KEYS, columns

log = logging.getLogger("tool.database")

Row = Sequence[Any]


class Session:
    """One long-lived connection, replaced after a failure. Not thread-safe."""

    placeholder: str
    # Exceptions of the driver, which `translate` converts to DatabaseError.
    errors: tuple[type[Exception], ...]
    duplicate_key: type[Exception]

    def __init__(self, url: str, password: str = "") -> None:
        self.url = url
        self.password = password
        self._connection: Connection | None = None
        # One cursor for all statements, because mysql-connector pings the server for each new
        # cursor.
        self._cursor: Any = None

    # MySQL and SQLite implement the following members.

    def begin(self, cursor: Any) -> None:
        """Starts a transaction that may write."""
        raise NotImplementedError

    def begin_reading(self, cursor: Any) -> None:
        """Starts a transaction that only reads."""
        raise NotImplementedError

    def begin_snapshot(self, cursor: Any) -> None:
        """Starts a transaction whose statements all read the tables as of its first statement."""
        raise NotImplementedError

    def commit(self) -> None:
        """Commits the current transaction."""
        raise NotImplementedError

    def translate(self, error: Exception) -> DatabaseError:
        """Returns PermanentFailure or Unavailable for an error of the driver."""
        raise NotImplementedError

    def tables(self, cursor: Any) -> set[str]:
        """Returns the names of the tables that exist."""
        raise NotImplementedError

    def defect(self, cursor: Any) -> str | None:
        """Says why this program cannot use the server or its tables, for example because a text
        column treats different texts as equal; None if it can."""
        raise NotImplementedError

    def upsert(self, table: str, values: Sequence[str], newer: str | None) -> str:
        """Returns the clause that replaces the columns `values` of an existing row. With `newer`,
        they are replaced only if the new value of that column is greater.
        """
        raise NotImplementedError

    def write(self, cursor: Any, insert: str, rows: Sequence[Row], upsert: str) -> None:
        """Inserts the rows. insert: the statement up to VALUES. upsert: the clause after them, or
        empty."""
        raise NotImplementedError

    # MySQL and SQLite share the following methods.

    def connect(self, timeout: int | None = 12) -> Connection:
        """Opens a connection. timeout: seconds that a server may take to answer; None: no limit."""
        return connect(self.url, self.password, timeout=timeout)

    def close(self) -> None:
        """Closes the connection; the next transaction opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                # SQLite keeps its lock while a cursor is referenced, for example by a traceback.
                connection.rollback()
                connection.close()
            except Exception as error:
                log.debug("closing the connection: %s", error)

    def transaction(self) -> AbstractContextManager[Any]:
        """Yields a cursor and commits at the end. Raises DatabaseError."""
        return self._transaction(self.begin)

    def reading(self) -> AbstractContextManager[Any]:
        """A transaction that only reads, and does not wait for transactions that write."""
        return self._transaction(self.begin_reading)

    def snapshot(self) -> AbstractContextManager[Any]:
        """A transaction that only reads, and whose statements all read the same state of the
        tables."""
        return self._transaction(self.begin_snapshot)

    @contextmanager
    def unlimited(self) -> Iterator[Any]:
        """Yields a cursor of a new connection without a time limit. Raises DatabaseError."""
        try:
            connection = self.connect(timeout=None)
            try:
                yield connection.cursor()
            finally:
                connection.close()
        except self.errors as error:
            raise self.translate(error) from error

    @contextmanager
    def _transaction(self, begin: Callable[[Any], None]) -> Iterator[Any]:
        try:
            if self._connection is None:
                self._connection = self.connect()
                self._cursor = self._connection.cursor()
            begin(self._cursor)
            yield self._cursor
            self.commit()
        except BaseException as error:
            # The state of the connection is unknown, and a new connection is cheap.
            self.close()
            if isinstance(error, self.errors):
                raise self.translate(error) from error
            raise

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """A transaction that fails if the tables have another version than this program.

        Raises DatabaseError: Unavailable while the tables are being upgraded, Outdated afterwards.
        """
        with self.transaction() as cursor:
            self.check_version(cursor)
            yield cursor

    def check_version(self, cursor: Any) -> None:
        """Raises Outdated if the tables have another version than this program."""
        cursor.execute(f"SELECT version_num FROM {TABLE}")
        versions = [version for (version,) in cursor.fetchall()]
        if versions != VERSIONS[-1:]:
            found = ", ".join(versions) or "none"
            raise Outdated(f"the tables have version {found}, this program needs {VERSIONS[-1]}")

    def execute(self, cursor: Any, statement: str, values: Sequence[Any] = ()) -> None:
        """Executes a statement with `?` for each value."""
        cursor.execute(statement.replace("?", self.placeholder), values)

    def execute_each(self, cursor: Any, statement: str, rows: Sequence[Row]) -> None:
        """Executes a statement once per row."""
        cursor.executemany(statement.replace("?", self.placeholder), rows)

    def insert(self, cursor: Any, table: str, rows: Sequence[Struct]) -> None:
        """Inserts rows of `wire.tables`. Raises the driver's error if a row exists."""
        if rows:
            self.write(cursor, _insert(table), list(map(astuple, rows)), "")

    def replace(
        self, cursor: Any, table: str, rows: Sequence[Struct], newer: str | None = None
    ) -> None:
        """Inserts or replaces rows. With `newer`, replaces a row only if the new value of that
        column is greater."""
        if rows:
            values = [column for column in columns(table) if column not in KEYS[table]]
            upsert = self.upsert(table, values, newer)
            self.write(cursor, _insert(table), list(map(astuple, rows)), upsert)


def _insert(table: str) -> str:
    return f"INSERT INTO {table} ({names(columns(table))})"
