"""A read-only database connection, which reconnects by itself."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import mysql.connector

from wire import database

Row = tuple[Any, ...]


class DatabaseDown(Exception):
    """The database does not answer or cannot be read."""


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
            raise DatabaseDown(_reason(error)) from error
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
            raise DatabaseDown(f"the file {database.sqlite_path(self._url)} does not exist yet")
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


def _reason(error: Exception) -> str:
    if isinstance(error, mysql.connector.Error) and error.msg:
        text = str(error.msg)
    elif isinstance(error, sqlite3.Error):
        text = str(error)
    else:
        text = str(error) or type(error).__name__
    return without_address(text)


def without_address(text: str) -> str:
    """The text of an error without the database's address, which pages must not show."""
    return re.sub(r"'[^']*@?[^']*:\d+'|'[^']*'@'[^']*'", "", text).strip()
