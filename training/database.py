"""A stream as tool has stored it, in MySQL, MariaDB or SQLite: read once, changed never."""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mysql.connector
import numpy as np
import pandas as pd
from mysql.connector import errorcode

from training.config import ENVIRONMENT

KEY = ["pat_id", "date_admission"]
ROWS_AT_ONCE = 50_000

LAST_STREAM = "SELECT stream FROM positions GROUP BY stream ORDER BY MAX(committed_at) DESC"
REJECTED = "SELECT COUNT(*) FROM rejected WHERE stream = ?"
STAYS = "SELECT pat_id, date_admission, age FROM stays WHERE stream = ?"
# In the order of the primary key: nothing is sorted, and the first row comes at once.
READINGS = (
    "SELECT seq, pat_id, date_admission, measured_at, parameter, value FROM readings"
    " WHERE stream = ? ORDER BY stream, seq"
)


class DatabaseFailure(Exception):
    """The database cannot be read; the message is one line and holds no password."""


@dataclass(frozen=True)
class Stored:
    """readings: seq, pat_id, date_admission, measured_at, parameter, value, by seq.

    ages: years by (pat_id, date_admission). rejected: messages that tool would not take.
    """

    stream: str
    readings: pd.DataFrame
    ages: "pd.Series[float]"
    rejected: int


def read(url: str, stream: str = "", environ: Mapping[str, str] = os.environ) -> Stored:
    """Read one stream as it is at this moment; the one last committed to if none is named.

    url: sqlite:///PATH, mysql://USER@HOST[:PORT]/DATABASE, or ENVIRONMENT. The password is in
        the file that DATABASE_PASSWORD_FILE names, or in the environment's address.

    Takes about 45 bytes a reading, twice that for a moment. Raises DatabaseFailure.
    """
    if url == ENVIRONMENT:
        url = environ.get("DATABASE_URL", "")
        if not url:
            raise DatabaseFailure(f"data.database: {ENVIRONMENT}, but DATABASE_URL is not set")
    with snapshot(url, environ) as (cursor, mark):

        def ask(statement: str, *values: str) -> Any:
            cursor.execute(statement.replace("?", mark), values)
            return cursor

        streams = [name for (name,) in ask(LAST_STREAM).fetchall()]
        if not streams or (stream and stream not in streams):
            missing = f"no stream {stream!r}" if stream else "no stream"
            there = f", only {', '.join(streams[:5])}" if streams else ""
            raise DatabaseFailure(f"{_shown(url)}: {missing} is stored{there}")
        stream = stream or streams[0]
        ((rejected,),) = ask(REJECTED, stream).fetchall()
        ages = _ages(ask(STAYS, stream).fetchall())
        return Stored(stream, _readings(ask(READINGS, stream)), ages, int(rejected))


@contextmanager
def snapshot(url: str, environ: Mapping[str, str] = os.environ) -> Iterator[tuple[Any, str]]:
    """A cursor that sees one moment, while tool goes on storing, and how it marks a value."""
    connection: Any = None
    try:
        if url.startswith("sqlite:///"):
            path = Path(url.removeprefix("sqlite:///")).absolute()
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)
            connection.execute("BEGIN")
            yield connection.cursor(), "?"
        else:
            connection = mysql.connector.connect(**_server(url, environ))
            # Unbuffered: rows are taken from the server as they are asked for.
            cursor = connection.cursor(buffered=False)
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # Spelt out: the driver takes a MariaDB for a server too old for READ ONLY.
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            yield cursor, "%s"
    except (sqlite3.Error, mysql.connector.Error) as error:
        number = getattr(error, "errno", None)
        if number == errorcode.ER_NO_SUCH_TABLE or str(error).startswith("no such table"):
            text = "the pipeline's tables are not in this database"
        else:
            text = " ".join(str(error).split())
        raise DatabaseFailure(f"{_shown(url)}: {text}") from None
    finally:
        if connection is not None:
            connection.close()


def _server(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 3306
    except ValueError as error:
        raise DatabaseFailure(f"{_shown(url)}: {error}") from None
    if parts.scheme != "mysql":
        raise DatabaseFailure(
            f"{_shown(url)}: expected sqlite:///PATH or mysql://USER@HOST[:PORT]/DATABASE"
        )
    password, file = unquote(parts.password or ""), environ.get("DATABASE_PASSWORD_FILE", "")
    if file:
        try:
            password = Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise DatabaseFailure(f"DATABASE_PASSWORD_FILE={file}: {error.strerror}") from None
    return {
        "host": host,
        "port": port,
        "user": unquote(parts.username or "root"),
        "password": password,
        "database": parts.path.strip("/") or "tooldb",
        "connection_timeout": 10,
        "charset": "utf8mb4",
        "collation": "utf8mb4_general_ci",  # known to MariaDB too
    }


def _shown(url: str) -> str:
    """The address without its password."""
    scheme, slashes, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}{slashes}{login.partition(':')[0]}{at}{place}"


def _ages(rows: list[tuple[Any, ...]]) -> "pd.Series[float]":
    patients, admissions, years = zip(*rows, strict=True) if rows else ((), (), ())
    stays = pd.MultiIndex.from_arrays(
        [np.array(patients, np.int64), np.array(admissions, "datetime64[s]")], names=KEY
    )
    return pd.Series(np.array(years, np.float64), stays, name="age").sort_index()


def _readings(cursor: Any) -> pd.DataFrame:
    """The rows as columns. Part by part: as Python's own objects they take ten times the room."""
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
