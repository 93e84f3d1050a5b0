"""MySQL and MariaDB."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import mysql.connector
from mysql.connector import MySQLConnection, errorcode
from mysql.connector.errors import get_mysql_exception

from tool.database.errors import DatabaseError, PermanentFailure, Unavailable
from tool.database.literals import statements
from tool.database.session import Row, Session
from wire.database import MYSQL_ERRORS, Connection
from wire.tables import TABLES

# Statements are collected until they have more bytes than this, and then sent together.
PACKET = 4_000_000
# Bytes that a server must accept in one packet: twice the longest statement, whose texts may be
# non-ASCII. MySQL's default is 64 MiB, MariaDB's 16 MiB.
LEAST_ACCEPTED = 2_000_000

# Errors that the rows cause. The server or its operator causes all other errors.
ROWS = frozenset(
    {
        errorcode.ER_DUP_ENTRY,
        errorcode.ER_BAD_NULL_ERROR,
        errorcode.ER_WARN_DATA_OUT_OF_RANGE,
        errorcode.ER_DATA_TOO_LONG,
        errorcode.ER_TRUNCATED_WRONG_VALUE,
        errorcode.ER_TRUNCATED_WRONG_VALUE_FOR_FIELD,
        errorcode.ER_INVALID_JSON_TEXT,
    }
)


class MySQLSession(Session):
    """A connection to a MySQL or MariaDB server."""

    placeholder = "%s"
    errors = (*MYSQL_ERRORS, OSError, OverflowError)
    duplicate_key = mysql.connector.IntegrityError

    def __init__(self, url: str, password: str = "") -> None:
        super().__init__(url, password)
        # Statements that are sent together, because each round trip delays the batch.
        self._unsent: list[bytes] = []
        self._packet = PACKET

    def connect(self, timeout: int | None = 12) -> Connection:
        connection = super().connect(timeout)
        cursor = connection.cursor()
        # Half, because the last statement makes a packet larger.
        self._packet = min(PACKET, _accepted(cursor) // 2)
        cursor.close()
        return connection

    def begin(self, cursor: Any) -> None:
        pass  # the first statement starts the transaction

    def begin_reading(self, cursor: Any) -> None:
        pass

    def begin_snapshot(self, cursor: Any) -> None:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def translate(self, error: Exception) -> DatabaseError:
        text = f"MySQL {urlsplit(self.url).hostname}: {error}"
        return (
            PermanentFailure(text) if getattr(error, "errno", None) in ROWS else Unavailable(text)
        )

    def tables(self, cursor: Any) -> set[str]:
        cursor.execute("SHOW TABLES")
        return {name for (name,) in cursor.fetchall()}

    def defect(self, cursor: Any) -> str | None:
        if (accepted := _accepted(cursor)) < LEAST_ACCEPTED:
            return (
                f"max_allowed_packet of the MySQL server is {accepted}: set it to"
                f" {LEAST_ACCEPTED} or more"
            )
        cursor.execute(
            "SELECT table_name, column_name, collation_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() AND collation_name NOT LIKE '%bin'"
        )
        found = sorted(
            f"{table}.{column} ({collation})"
            for table, column, collation in cursor.fetchall()
            if table in TABLES
        )
        if not found:
            return None
        return (
            f"column {found[0]} treats texts such as CO and co as equal: give it a binary"
            " collation, utf8mb4_0900_bin in MySQL and utf8mb4_nopad_bin in MariaDB"
        )

    def upsert(self, table: str, values: Sequence[str], newer: str | None) -> str:
        # VALUES(), because MariaDB does not support the row alias that MySQL prefers.
        new = {column: f"VALUES(`{column}`)" for column in values}
        if newer:
            # MySQL evaluates assignments from left to right, so the assignment to `newer` must be
            # the last.
            new[newer] = new.pop(newer)
            only = f"{new[newer]} > {table}.`{newer}`"
            new = {
                column: f"IF({only}, {value}, {table}.`{column}`)" for column, value in new.items()
            }
        sets = ", ".join(f"`{column}` = {value}" for column, value in new.items())
        return f" ON DUPLICATE KEY UPDATE {sets}"

    def write(self, cursor: Any, insert: str, rows: Sequence[Row], upsert: str) -> None:
        # `executemany` is not used: it searches the statement's text, which takes five times as
        # long as the write itself. JSON_TABLE is not used: with it the server takes 1.5 to 2 times
        # as long.
        for values in statements(rows):
            self._unsent.append(f"{insert} VALUES {values}{upsert}".encode())
            if sum(map(len, self._unsent)) > self._packet:
                self._send()

    def execute(self, cursor: Any, statement: str, values: Sequence[Any] = ()) -> None:
        self._send()
        super().execute(cursor, statement, values)

    def execute_each(self, cursor: Any, statement: str, rows: Sequence[Row]) -> None:
        self._send()
        super().execute_each(cursor, statement, rows)

    def commit(self) -> None:
        self._unsent.append(b"COMMIT")
        self._send()

    def close(self) -> None:
        self._unsent.clear()
        super().close()

    def _send(self) -> None:
        if not self._unsent:
            return
        connection: Any = self._connection
        # After an error, the server skips the remaining statements.
        query = b";".join(self._unsent)
        self._unsent.clear()
        if isinstance(connection, MySQLConnection):  # without the C extension
            for _ in connection.cmd_query_iter(query):
                pass
            return
        connection.cmd_query(query)
        try:
            while connection.more_results:
                connection.next_result()
        except MYSQL_ERRORS as error:  # as `cmd_query` does
            raise get_mysql_exception(error.errno, error.msg, error.sqlstate) from error


def _accepted(cursor: Any) -> int:
    """The maximum bytes of a packet that the server accepts."""
    cursor.execute("SELECT @@max_allowed_packet")
    [(accepted,)] = cursor.fetchall()
    return int(accepted)
