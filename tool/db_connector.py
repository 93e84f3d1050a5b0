"""The database: MySQL (or MariaDB) and SQLite behind one interface.

One batch is one transaction, guarded by its partition's position: `commit` changes nothing
unless the position still is what the batch was computed from.
"""

import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import mysql.connector
from mysql.connector import errorcode

log = logging.getLogger("tool.database")

Row = tuple[Any, ...]
SCHEMA = Path(__file__).parent / "database" / "init.sql"


class DatabaseError(Exception):
    """The database did not do what it was asked."""


class Unavailable(DatabaseError):
    """It could not, for a reason that has nothing to do with the rows: try again."""


class Refused(DatabaseError):
    """It would not take these rows, and never will."""


class Moved(DatabaseError):
    """The partition's position is not what the batch was computed from."""


@dataclass
class Changes:
    """All that one batch changes: rows in the order of the tables' columns.

    part: None for a single message that was rejected before. complete: with these rows,
    `vitals` holds all of the partition's readings.
    """

    stream: str
    part: int | None
    after: int
    last: int
    now: str
    complete: bool = False
    readings: list[Row] = field(default_factory=list)
    stays: list[Row] = field(default_factory=list)
    vitals: list[Row] = field(default_factory=list)
    predictions: list[Row] = field(default_factory=list)
    pending: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)


TABLES = {
    "readings": "stream seq pat_id date_admission measured_at parameter value",
    "stays": "stream pat_id date_admission age date_discharge",
    "vitals": "stream pat_id date_admission parameter n mean m2 minimum maximum first_value"
    " first_at last_value last_at hours_mean hours_m2 covariance mean_low seq",
    "predictions": "stream seq model version pat_id date_admission measured_at features probability"
    " reason created_at",
    "pending": "stream seq model",
    "rejected": "stream seq pat_id reason message rejected_at",
    "positions": "stream part seq vitals_seq committed_at",
    "models": "model version role features seen_at",
}
KEYS = {
    "stays": "pat_id date_admission stream",
    "vitals": "pat_id date_admission parameter stream",
    "rejected": "stream seq",
    "models": "model version",
    "predictions": "stream seq model",
}
# Tables whose rows may be there already.
UPSERTED = ("stays", "vitals", "rejected")
# Characters a statement; MySQL takes 64 MiB, MariaDB 16.
STATEMENT = 1_000_000


class Connection(Protocol):
    """What is used of a PEP 249 connection."""

    def cursor(self) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...


class Database:
    """One long-lived connection, made anew after a failure. Not for several threads."""

    placeholder = "?"

    def __init__(self) -> None:
        self._connection: Connection | None = None
        # One for good: mysql-connector asks the server "are you there" for each new one.
        self._cursor: Any = None

    # What differs between the two.

    def _connect(self) -> Connection:
        raise NotImplementedError

    def _begin(self, cursor: Any) -> None:
        raise NotImplementedError

    def _translate(self, error: Exception) -> DatabaseError:
        raise NotImplementedError

    def _upsert(self, table: str, columns: Sequence[str], newer: str | None) -> str:
        """Of a row that is there, replaces the columns; with `newer` only if that is greater."""
        raise NotImplementedError

    def _write(
        self, cursor: Any, table: str, columns: Sequence[str], rows: Sequence[Row], upsert: str
    ) -> None:
        raise NotImplementedError

    # What is the same.

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                # SQLite keeps the lock while a cursor lives, as in an error's traceback.
                connection.rollback()
                connection.close()
            except Exception as error:
                log.debug("closing: %s", error)

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._cursor = self._connection.cursor()
            self._begin(self._cursor)
            yield self._cursor
            self._connection.commit()
        except BaseException as error:
            # A new connection costs little, and leaves no doubt about the old one's state.
            self.close()
            if isinstance(error, sqlite3.Error | mysql.connector.Error | OSError | OverflowError):
                raise self._translate(error) from error
            raise

    def _execute(self, cursor: Any, statement: str, values: Sequence[Any] = ()) -> Any:
        cursor.execute(statement.replace("?", self.placeholder), values)
        return cursor

    def _insert(
        self,
        cursor: Any,
        table: str,
        rows: Sequence[Row],
        upsert: bool = False,
        newer: str | None = None,
    ) -> None:
        if rows:
            columns = TABLES[table].split()
            values = [column for column in columns if column not in KEYS.get(table, "").split()]
            replacing = self._upsert(table, values, newer) if upsert else ""
            self._write(cursor, table, columns, rows, replacing)

    def create_tables(self) -> None:
        """Makes the tables that are missing; a user without that right needs them to be there.

        Raises Refused when there are some of another version.
        """
        with self._transaction() as cursor:
            if not self._tables(cursor) >= set(TABLES):
                for statement in re.sub(r"--.*", "", SCHEMA.read_text()).split(";"):
                    if statement.strip():
                        cursor.execute(statement)
            for table, columns in TABLES.items():
                cursor.execute(f"SELECT * FROM {table} LIMIT 0")
                missing = set(columns.split()) - {column[0] for column in cursor.description}
                cursor.fetchall()
                if missing:
                    raise Refused(
                        f"table {table} has no column {min(missing)}: it was made by another"
                        " version of ICU Stream. Begin with an empty database"
                    )

    def _tables(self, cursor: Any) -> set[str]:
        raise NotImplementedError

    def position(self, stream: str, part: int) -> int:
        """The partition's last message that is stored; 0 before the first."""
        with self._transaction() as cursor:
            self._execute(
                cursor, "SELECT seq FROM positions WHERE stream = ? AND part = ?", (stream, part)
            )
            row = cursor.fetchone()
        return int(row[0]) if row else 0

    def positions(self) -> list[tuple[str, int, int]]:
        """(stream, part, seq) of all partitions."""
        with self._transaction() as cursor:
            self._execute(cursor, "SELECT stream, part, seq FROM positions")
            return [(stream, int(part), int(seq)) for stream, part, seq in cursor.fetchall()]

    def stays(self, stream: str, patients: Sequence[int]) -> tuple[list[Row], list[Row]]:
        """Rows of `stays` and `vitals`, without their stream, of these patients."""
        marks = ", ".join("?" * len(patients))
        where = f"WHERE pat_id IN ({marks}) AND stream = ?"
        with self._transaction() as cursor:
            found = []
            for table in ("stays", "vitals"):
                columns = _names(TABLES[table].split()[1:])
                self._execute(
                    cursor,
                    f"SELECT {columns} FROM {table} {where}",
                    (*patients, stream),
                )
                found.append([_plain(row) for row in cursor.fetchall()])
        return found[0], found[1]

    def recent(
        self, stream: str, pat_id: int, date_admission: str, since: str
    ) -> list[tuple[str, str, float]]:
        """(measured_at, parameter, value) of a stay's readings after `since`, as they came."""
        with self._transaction() as cursor:
            self._execute(
                cursor,
                "SELECT measured_at, parameter, value FROM readings WHERE pat_id = ?"
                " AND date_admission = ? AND measured_at > ? AND stream = ? ORDER BY seq",
                (pat_id, date_admission, since, stream),
            )
            return [_plain(row) for row in cursor.fetchall()]

    def parts_behind(self) -> list[tuple[str, int]]:
        """(stream, part) of the partitions with readings that `vitals` may not hold."""
        with self._transaction() as cursor:
            self._execute(cursor, "SELECT stream, part FROM positions WHERE vitals_seq < seq")
            return [(stream, int(part)) for stream, part in cursor.fetchall()]

    def behind(self, stream: str) -> tuple[dict[int, int], list[Row]]:
        """The readings that `vitals` may not hold yet, and how far it has come with them.

        The position by partition; and (seq, pat_id, date_admission, measured_at, parameter,
        value) in the order they came.
        """
        with self._transaction() as cursor:
            self._execute(
                cursor, "SELECT part, seq, vitals_seq FROM positions WHERE stream = ?", (stream,)
            )
            found = [(int(p), int(seq), int(done)) for p, seq, done in cursor.fetchall()]
            behind = [done for _, seq, done in found if done < seq]
            if not behind:
                return {}, []
            self._execute(
                cursor,
                "SELECT seq, pat_id, date_admission, measured_at, parameter, value FROM readings"
                " WHERE stream = ? AND seq > ? ORDER BY seq",
                (stream, min(behind)),
            )
            readings = [_plain(row) for row in cursor.fetchall()]
        return {part: seq for part, seq, _ in found}, readings

    def catch_up(self, stream: str, positions: dict[int, int], vitals: Sequence[Row]) -> None:
        """Writes rows of `vitals` that have come further than those in the table."""
        with self._transaction() as cursor:
            for part, seq in sorted(positions.items()):
                self._execute(
                    cursor,
                    "UPDATE positions SET vitals_seq = ?"
                    " WHERE stream = ? AND part = ? AND vitals_seq < ?",
                    (seq, stream, part, seq),
                )
            # Another worker may have written what it has in memory since `behind`.
            self._insert(cursor, "vitals", vitals, upsert=True, newer="seq")

    def commit(self, changes: Changes) -> None:
        """Writes all of it or nothing. Raises Moved, Refused or Unavailable."""
        with self._transaction() as cursor:
            if changes.part is not None:
                self._move(cursor, changes, changes.part)
            else:
                self._execute(
                    cursor,
                    "DELETE FROM rejected WHERE stream = ? AND seq = ?",
                    (changes.stream, changes.last),
                )
                if cursor.rowcount != 1:
                    raise Moved
            for table in ("readings", "stays", "vitals", "predictions", "pending", "rejected"):
                self._insert(cursor, table, getattr(changes, table), upsert=table in UPSERTED)

    def _move(self, cursor: Any, changes: Changes, part: int) -> None:
        # First, so that two workers on one partition wait for each other here.
        self._execute(
            cursor,
            "UPDATE positions SET seq = ?, committed_at = ?,"
            " vitals_seq = CASE WHEN ? THEN ? ELSE vitals_seq END"
            " WHERE stream = ? AND part = ? AND seq = ?",
            (
                changes.last,
                changes.now,
                changes.complete,
                changes.last,
                changes.stream,
                part,
                changes.after,
            ),
        )
        if cursor.rowcount == 1:
            return
        if changes.after:
            raise Moved
        try:
            self._execute(
                cursor,
                "INSERT INTO positions (stream, part, seq, vitals_seq, committed_at)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    changes.stream,
                    part,
                    changes.last,
                    changes.last if changes.complete else 0,
                    changes.now,
                ),
            )
        except (sqlite3.IntegrityError, mysql.connector.IntegrityError):
            raise Moved from None

    def models(self) -> list[Row]:
        """Rows of `models`."""
        with self._transaction() as cursor:
            self._execute(cursor, f"SELECT {_names(TABLES['models'].split())} FROM models")
            return [_plain(row) for row in cursor.fetchall()]

    def remember_models(self, rows: Sequence[Row]) -> None:
        with self._transaction() as cursor:
            self._execute(cursor, "UPDATE models SET role = 'retired' WHERE role <> 'retired'")
            self._insert(cursor, "models", rows, upsert=True)

    def pending(self, model: str, limit: int) -> list[Row]:
        """Predictions that wait for the model, as rows of `predictions`, oldest first."""
        columns = ", ".join(f"predictions.{c}" for c in TABLES["predictions"].split())
        with self._transaction() as cursor:
            self._execute(
                cursor,
                f"SELECT {columns} FROM pending JOIN predictions ON"
                " predictions.stream = pending.stream AND predictions.seq = pending.seq"
                " AND predictions.model = pending.model WHERE pending.model = ?"
                " ORDER BY pending.stream, pending.seq LIMIT ?",
                (model, limit),
            )
            return [_plain(row) for row in cursor.fetchall()]

    def is_stored(self, stream: str, seq: int) -> bool:
        """Whether the message is in `readings`."""
        with self._transaction() as cursor:
            self._execute(
                cursor, "SELECT 1 FROM readings WHERE stream = ? AND seq = ?", (stream, seq)
            )
            return cursor.fetchone() is not None

    def waiting(self, limit: int) -> int:
        """How many predictions wait for their model, counted up to `limit`."""
        with self._transaction() as cursor:
            self._execute(
                cursor,
                "SELECT COUNT(*) FROM (SELECT 1 FROM pending LIMIT ?) AS counted",
                (limit,),
            )
            return int(cursor.fetchone()[0])

    def fill_in(self, rows: Sequence[Row]) -> None:
        """Writes predictions that were pending, and takes them off the list."""
        with self._transaction() as cursor:
            self._insert(cursor, "predictions", rows, upsert=True)
            cursor.executemany(
                "DELETE FROM pending WHERE stream = ? AND seq = ? AND model = ?".replace(
                    "?", self.placeholder
                ),
                [row[:3] for row in rows],
            )

    def count(self, table: str, stream: str) -> int:
        """Rows of `table` that belong to the stream; of predictions, those the champion made."""
        made = (
            " AND probability IS NOT NULL"
            " AND model = (SELECT MIN(model) FROM models WHERE role = 'champion')"
            if table == "predictions"
            else ""
        )
        with self._transaction() as cursor:
            self._execute(cursor, f"SELECT COUNT(*) FROM {table} WHERE stream = ?{made}", (stream,))
            return int(cursor.fetchone()[0])

    def rejected(self, reason: str) -> Iterable[Row]:
        """(stream, seq, message) of rejected messages whose reason begins with `reason`."""
        with self._transaction() as cursor:
            self._execute(
                cursor,
                "SELECT stream, seq, message FROM rejected WHERE reason LIKE ?"
                " ORDER BY stream, seq",
                (reason + "%",),
            )
            return [_plain(row) for row in cursor.fetchall()]


class SQLite(Database):
    """A file. WAL, and synchronous=FULL: what is committed survives a power cut."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)

    def _connect(self) -> Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _begin(self, cursor: Any) -> None:
        # At once for writing: a transaction that begins as a reader cannot always become one.
        cursor.execute("BEGIN IMMEDIATE")

    def _tables(self, cursor: Any) -> set[str]:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in cursor.fetchall()}

    def _upsert(self, table: str, columns: Sequence[str], newer: str | None) -> str:
        keys = ", ".join(KEYS[table].split())
        sets = ", ".join(f"`{column}` = excluded.`{column}`" for column in columns)
        only = f" WHERE excluded.`{newer}` > {table}.`{newer}`" if newer else ""
        return f" ON CONFLICT ({keys}) DO UPDATE SET {sets}{only}"

    def _write(
        self, cursor: Any, table: str, columns: Sequence[str], rows: Sequence[Row], upsert: str
    ) -> None:
        marks = ", ".join("?" * len(columns))
        cursor.executemany(
            f"INSERT INTO {table} ({_names(columns)}) VALUES ({marks}){upsert}", rows
        )

    def _translate(self, error: Exception) -> DatabaseError:
        text = f"SQLite {self._path}: {error}"
        refused = (
            sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError | OverflowError
        )
        return Refused(text) if isinstance(error, refused) else Unavailable(text)


class MySQL(Database):
    """A MySQL or MariaDB server."""

    placeholder = "%s"

    # Errors that speak of the rows. All others are the server's or the operator's business.
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

    def __init__(self, host: str, port: int, user: str, password: str, database: str) -> None:
        super().__init__()
        self._server = {
            "host": host,
            "port": port,
            "user": user,
            "password": password,
            "database": database,
        }

    def _connect(self) -> Connection:
        connection = mysql.connector.connect(
            **self._server,
            autocommit=False,
            connection_timeout=5,
            # Shorter than anybody's patience: a connection that was cut off says nothing.
            read_timeout=12,
            write_timeout=12,
            charset="utf8mb4",
            collation="utf8mb4_general_ci",  # known to MariaDB too
            sql_mode="TRADITIONAL,NO_BACKSLASH_ESCAPES",
        )
        cursor = connection.cursor()
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("SET SESSION innodb_lock_wait_timeout = 10")
        cursor.close()
        return connection

    def _begin(self, cursor: Any) -> None:
        pass  # the first statement does

    def _tables(self, cursor: Any) -> set[str]:
        cursor.execute("SHOW TABLES")
        return {name for (name,) in cursor.fetchall()}

    def _upsert(self, table: str, columns: Sequence[str], newer: str | None) -> str:
        # VALUES(): the row alias that MySQL prefers is not known to MariaDB.
        new = {column: f"VALUES(`{column}`)" for column in columns}
        if newer:
            # From left to right, each seeing what the ones before it did: `newer` goes last.
            new[newer] = new.pop(newer)
            only = f"{new[newer]} > {table}.`{newer}`"
            new = {
                column: f"IF({only}, {value}, {table}.`{column}`)" for column, value in new.items()
            }
        sets = ", ".join(f"`{column}` = {value}" for column, value in new.items())
        return f" ON DUPLICATE KEY UPDATE {sets}"

    def _write(
        self, cursor: Any, table: str, columns: Sequence[str], rows: Sequence[Row], upsert: str
    ) -> None:
        # Not by `executemany`, whose search through the statement's text costs the worker five
        # times what writing it does; JSON_TABLE costs the server half as much again, or twice.
        connection: Any = self._connection
        insert = f"INSERT INTO {table} ({_names(columns)}) VALUES "
        for values in _statements(rows):
            connection.cmd_query(f"{insert}{values}{upsert}".encode())

    def _translate(self, error: Exception) -> DatabaseError:
        text = f"MySQL {self._server['host']}: {error}"
        return Refused(text) if getattr(error, "errno", None) in self.ROWS else Unavailable(text)


def connect(url: str, password: str = "") -> Database:
    """The database at `url`: sqlite:///PATH or mysql://USER[:PASSWORD]@HOST[:PORT]/DATABASE.

    Connects when it is first used.
    """
    if url.startswith("sqlite:///"):
        return SQLite(url.removeprefix("sqlite:///"))
    parts = urlsplit(url)
    return MySQL(
        parts.hostname or "127.0.0.1",
        parts.port or 3306,
        unquote(parts.username or "root"),
        password or unquote(parts.password or ""),
        parts.path.strip("/") or "tooldb",
    )


def _statements(rows: Iterable[Row]) -> Iterator[str]:
    """The rows as lists of SQL literals, about a megabyte each."""
    some: list[str] = []
    size = 0
    quoted = _Quoted()
    for row in rows:
        text = ",".join(
            [
                quoted[cell]
                if cell.__class__ is str
                else repr(cell)
                if cell.__class__ is int or (cell.__class__ is float and cell - cell == 0.0)
                else "NULL"
                if cell is None
                else _refuse(cell)
                for cell in row
            ]
        )
        some.append(text)
        size += len(text)
        if size > STATEMENT:
            yield f"({'),('.join(some)})"
            some, size = [], 0
    if some:
        yield f"({'),('.join(some)})"


class _Quoted(dict[str, str]):
    """Texts as SQL literals. Most are those of the row before, so each is made once."""

    def __missing__(self, text: str) -> str:
        # Needs no more than this: the session is one of NO_BACKSLASH_ESCAPES.
        literal = self[text] = "'" + text.replace("'", "''") + "'"
        return literal


def _refuse(cell: object) -> str:
    raise Refused(f"{cell!r} is nothing that a table can hold")


def _names(columns: Sequence[str]) -> str:
    """In backticks, which SQLite knows too: MySQL reserves `last_value`."""
    return ", ".join(f"`{column}`" for column in columns)


def _plain(row: Sequence[Any]) -> Any:
    """Dates as the texts that SQLite has, JSON as text, whatever the driver made of them."""
    return tuple(
        cell
        if cell is None or isinstance(cell, int | float | str)
        else cell.decode()
        if isinstance(cell, bytes | bytearray)
        else str(cell)
        for cell in row
    )
