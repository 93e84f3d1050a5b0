"""Reads a stored stream from MySQL, MariaDB or SQLite."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd

from training.config import ENVIRONMENT
from training.errors import TrainingError
from wire import database, settings
from wire.settings import DatabaseUrl, SecretFile

KEY = ["pat_id", "date_admission"]
ROWS_AT_ONCE = 50_000

STREAMS = "SELECT stream FROM positions GROUP BY stream ORDER BY MAX(committed_at) DESC"
REJECTED = "SELECT COUNT(*) FROM rejected WHERE stream = ?"
STAYS = "SELECT pat_id, date_admission, age FROM stays WHERE stream = ?"
IDENTIFIERS = (
    "SELECT DISTINCT identifier, pat_id FROM stays WHERE stream = ? AND identifier IS NOT NULL"
)
# The order is that of the primary key, so that the database sends the first row at once, without
# sorting.
READINGS = (
    "SELECT seq, pat_id, date_admission, measured_at, parameter, value FROM readings"
    " WHERE stream = ? ORDER BY stream, seq"
)


class DatabaseFailure(TrainingError):
    """The database cannot be read; the message is one line without the password."""


class Settings(msgspec.Struct, frozen=True):
    """The pipeline's database settings."""

    database_url: Annotated[DatabaseUrl, "address of the pipeline's database"] = DatabaseUrl("")
    database_password_file: Annotated[SecretFile, "file with its password"] = SecretFile("")


@dataclass(frozen=True)
class Stored:
    """A stream as the pipeline stored it.

    readings: seq, pat_id, date_admission, measured_at, parameter, value, by seq. ages: years by
    (pat_id, date_admission). identifiers: pat_id by identifier, if the stream has identifiers.
    rejected: the number of rejected messages.
    """

    stream: str
    readings: pd.DataFrame
    ages: "pd.Series[float]"
    identifiers: dict[str, int]
    rejected: int


class Snapshot:
    """One state of a database: all queries see it, even while the pipeline stores readings."""

    def __init__(self, cursor: Any, url: str) -> None:
        self._cursor = cursor
        self._url = url
        self._placeholder = database.placeholder(url)

    def select(self, statement: str, *values: str) -> Any:
        """Runs a query, in which `?` stands for a value; returns the cursor."""
        self._cursor.execute(statement.replace("?", self._placeholder), values)
        return self._cursor

    def stream(self, name: str) -> str:
        """Returns `name` or, if it is empty, the stream with the latest commit. Raises
        DatabaseFailure if no such stream is stored.
        """
        streams = [stream for (stream,) in self.select(STREAMS).fetchall()]
        if not streams or (name and name not in streams):
            missing = f"no stream {name!r}" if name else "no stream"
            there = f", only {', '.join(streams[:5])}" if streams else ""
            url = settings.without_password(self._url)
            raise DatabaseFailure(f"{url}: {missing} is stored{there}")
        return name or str(streams[0])

    def ages(self, stream: str) -> "pd.Series[float]":
        """The patients' ages in years, by KEY."""
        return _ages(self.select(STAYS, stream).fetchall())

    def identifiers(self, stream: str) -> dict[str, int]:
        """The pat_id of each identifier, if the stream has identifiers."""
        try:
            return dict(self.select(IDENTIFIERS, stream).fetchall())
        except database.ERRORS:  # tables of version 1 that are not migrated yet
            return {}


def read(url: str, stream: str = "", environ: Mapping[str, str] = os.environ) -> Stored:
    """Reads one stream; by default the stream with the latest commit.

    url: sqlite:///PATH, mysql://USER@HOST[:PORT]/DATABASE, or ENVIRONMENT for DATABASE_URL. The
    password is in the file that DATABASE_PASSWORD_FILE names, or in DATABASE_URL. The result takes
    about 45 bytes of memory per reading, and this function needs up to twice as much. Raises
    DatabaseFailure.
    """
    with snapshot(url, environ) as stored:
        stream = stored.stream(stream)
        ((rejected,),) = stored.select(REJECTED, stream).fetchall()
        ages, identifiers = stored.ages(stream), stored.identifiers(stream)
        readings = _readings(stored.select(READINGS, stream))
        return Stored(stream, readings, ages, identifiers, int(rejected))


@contextmanager
def snapshot(url: str, environ: Mapping[str, str] = os.environ) -> Iterator[Snapshot]:
    """Opens a snapshot. url: as for `read`. Raises DatabaseFailure for an error of the database."""
    url, password = _address(url, environ)
    connection: database.Connection | None = None
    try:
        connection = database.connect(url, password, read_only=True)
        cursor = connection.cursor()
        if database.is_sqlite(url):
            cursor.execute("BEGIN")
        else:
            cursor.execute(database.UNLIMITED)
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        yield Snapshot(cursor, url)
    except database.ERRORS as error:
        text = " ".join(str(error).split())
        if "no such table" in text or "doesn't exist" in text:
            text = f"the pipeline's tables are not in this database ({text})"
        raise DatabaseFailure(f"{settings.without_password(url)}: {text}") from None
    finally:
        if connection is not None:
            connection.close()


def _address(url: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The address of the database, and its password."""
    given = dict(environ) if url == ENVIRONMENT else {**environ, "DATABASE_URL": url}
    try:
        found = settings.read(Settings, given)
    except settings.SettingError as error:
        raise DatabaseFailure(str(error)) from None
    if not found.database_url:
        raise DatabaseFailure(f"data.database: {ENVIRONMENT}, but DATABASE_URL is not set")
    return found.database_url, found.database_password_file.secret


def _ages(rows: list[tuple[Any, ...]]) -> "pd.Series[float]":
    patients, admissions, years = zip(*rows, strict=True) if rows else ((), (), ())
    stays = pd.MultiIndex.from_arrays(
        [np.array(patients, np.int64), np.array(admissions, "datetime64[s]")], names=KEY
    )
    return pd.Series(np.array(years, np.float64), stays, name="age").sort_index()


def _readings(cursor: Any) -> pd.DataFrame:
    """Converts the rows to columns, in parts, because Python objects take ten times the memory."""
    codes: dict[str, int] = {}
    parts: dict[str, list[Any]] = {
        name: [] for name in ("seq", *KEY, "measured_at", "parameter", "value")
    }
    while rows := cursor.fetchmany(ROWS_AT_ONCE):
        seq, patients, admissions, moments, parameters, values = zip(*rows, strict=True)
        parts["seq"].append(np.array(seq, np.int64))
        parts["pat_id"].append(np.array(patients, np.int64))
        parts["date_admission"].append(np.array(admissions, "datetime64[s]"))
        parts["measured_at"].append(np.array(moments, "datetime64[s]"))
        numbers = [codes.setdefault(name, len(codes)) for name in parameters]
        parts["parameter"].append(np.array(numbers, np.int32))
        parts["value"].append(np.array(values, np.float64))
    columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)} if codes else parts
    return pd.DataFrame(
        columns | {"parameter": pd.Categorical.from_codes(columns["parameter"], list(codes))}
    )
