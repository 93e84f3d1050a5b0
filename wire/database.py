"""Opens the database: MySQL, MariaDB or an SQLite file, for writing or for reading."""

import sqlite3
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

import mysql.connector

try:
    from _mysql_connector import MySQLInterfaceError
except ImportError:  # the connector was installed without its C extension
    MySQLInterfaceError = mysql.connector.InterfaceError

# The connector converts the errors of its C extension, but not those of a commit.
MYSQL_ERRORS = (mysql.connector.Error, MySQLInterfaceError)
# The exceptions that the drivers raise when the database is unavailable or a statement fails.
ERRORS = (sqlite3.Error, *MYSQL_ERRORS, OSError)

# Lifts the limit of `tooldb/mysqld.cnf` for the statements of a session that reads a whole table.
# MariaDB, which has no such limit, ignores the comment.
UNLIMITED = "SET @unlimited = 1 /*!80000 , SESSION max_execution_time = 0 */"


class Connection(Protocol):
    """The part of a PEP 249 connection that the services use."""

    def cursor(self) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...


def connect(
    url: str, password: str = "", *, read_only: bool = False, timeout: int | None = 12
) -> Connection:
    """Opens `sqlite:///PATH` or `mysql://USER[:PASSWORD]@HOST[:PORT]/DATABASE`.

    An SQLite path is taken literally. password: replaces that of the URL unless it is empty.
    timeout: seconds that MySQL may take to answer; None: no limit. A read-only connection is in
    autocommit mode and cannot write. Raises one of ERRORS; with `read_only`, a missing SQLite file
    raises sqlite3.OperationalError.
    """
    if url.startswith("sqlite:///"):
        return _sqlite(sqlite_path(url), read_only)
    return _mysql(url, password, read_only, timeout)


def is_sqlite(url: str) -> bool:
    """Whether the address is that of an SQLite file."""
    return url.startswith("sqlite:")


def sqlite_path(url: str) -> Path:
    """The path of the file in an SQLite address."""
    return Path(url.removeprefix("sqlite:///"))


def placeholder(url: str) -> str:
    """The placeholder for a value in an SQL statement."""
    return "?" if is_sqlite(url) else "%s"


def _sqlite(path: Path, read_only: bool) -> Connection:
    if read_only:
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        return sqlite3.connect(address, uri=True, timeout=2, isolation_level=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    # Makes each commit survive a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    # In KiB. SQLite's default of 2 MB is smaller than a large batch, whose pages would be written
    # several times.
    connection.execute("PRAGMA cache_size = -32768")
    return connection


def _mysql(url: str, password: str, read_only: bool, timeout: int | None) -> Connection:
    parts = urlsplit(url)
    connection: Any = mysql.connector.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=password or unquote(parts.password or ""),
        database=unquote(parts.path.strip("/")) or "tooldb",
        autocommit=read_only,
        connection_timeout=3 if read_only else 5,
        # A broken connection may not raise an error by itself.
        read_timeout=timeout,
        write_timeout=timeout,
        charset="utf8mb4",
        collation="utf8mb4_general_ci",  # exists in MySQL and MariaDB
        sql_mode="TRADITIONAL,NO_BACKSLASH_ESCAPES",
    )
    cursor = connection.cursor()
    if read_only:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
    else:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("SET SESSION innodb_lock_wait_timeout = 10")
    if timeout is None:
        cursor.execute(UNLIMITED)
    cursor.close()
    return connection  # type: ignore[no-any-return]
