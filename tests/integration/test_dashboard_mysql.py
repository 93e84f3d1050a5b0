"""Tests that the dashboard's queries return the same rows on MariaDB as on SQLite, and that they do
not read more rows when more is stored.
"""

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dashboard.database import Database
from dashboard.rows import StayKey
from dashboard.ward import WardReader
from tests.integration.test_dashboard import KEY, QUERIES, clock_of
from tests.support import seeded_ward
from tests.support.seeded_ward import START, STREAM, fill
from tests.support.servers import as_root
from wire.vitals import VITALS

TABLES = (
    *("readings", "stays", "vitals", "predictions", "pending", "rejected", "positions", "models"),
)


def copy(source: Path, server: int, name: str) -> None:
    """Creates the database `name` on the server, and copies the rows of an SQLite file to it."""
    with closing(as_root(server)) as to, closing(sqlite3.connect(source)) as rows:
        cursor = to.cursor()
        cursor.execute(f"CREATE DATABASE {name}")
        cursor.execute(f"USE {name}")
        seeded_ward.create_tables(f"mysql://root@127.0.0.1:{server}/{name}")
        for table in TABLES:
            found = rows.execute(f"SELECT * FROM {table}").fetchall()
            if found:
                marks = ", ".join(["%s"] * len(found[0]))
                cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", found)
        cursor.execute(f"ANALYZE TABLE {', '.join(TABLES)}")
        cursor.fetchall()


@pytest.fixture(scope="module")
def histories(mariadb_server: int, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The databases `small` and `large` have the same ward; `large` has more history."""
    for name, discharged in (("small", 45), ("large", 450)):
        path = tmp_path_factory.mktemp(name) / "icu.sqlite"
        with seeded_ward.ward(path) as made:
            fill(made, 20, 8, discharged=discharged)
            for index in range(discharged):
                made.reject("no value", "{}", pat_id=1000 + index)
            made.commit()
        copy(path, mariadb_server, name)
    return mariadb_server


def handler_reads(cursor: Any, sql: str, arguments: tuple[object, ...]) -> int:
    """Runs a query; returns the number of rows and index entries that the server reads for it."""
    cursor.execute("FLUSH STATUS")
    cursor.execute(sql.replace("?", "%s"), arguments)
    cursor.fetchall()
    cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
    return sum(int(count) for _, count in cursor.fetchall())


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_reads_no_more_rows_when_more_is_stored(name: str, histories: int) -> None:
    reads = []
    for database in ("small", "large"):
        with closing(as_root(histories, database=database)) as connection:
            reads.append(handler_reads(connection.cursor(), *QUERIES[name]))
    small, large = reads
    # For a list of names, the server reads either one range or one row per name.
    assert large <= small * 1.1 + len(VITALS)


def test_mariadb_and_sqlite_return_the_same_rows(mariadb_server: int, tmp_path: Path) -> None:
    path = tmp_path / "icu.sqlite"
    with seeded_ward.ward(path) as made:
        fill(made, 4, 12, discharged=3)
        made.reject("no value", '{"pat_id":2}', pat_id=2)
        made.commit()
    copy(path, mariadb_server, "same")
    told = []
    for url in (f"sqlite:///{path}", f"mysql://root@127.0.0.1:{mariadb_server}/same"):
        with closing(Database(url)) as database, database.snapshot():
            key = StayKey(2, START.date())
            told.append(
                (
                    WardReader(database).read(clock_of(database), KEY, False),
                    database.positions(),
                    database.readings(STREAM, key, KEY, datetime.fromisoformat("2150-03-01")),
                    database.rejected_of(STREAM, 2),
                    database.rejected_after(STREAM, 0, 10_000, 5),
                    database.prediction(STREAM, 5, KEY),
                    database.vitals_of(STREAM, key),
                    database.stays_of(STREAM, 5),
                    database.pending(STREAM),
                )
            )
    assert told[0] == told[1]
    assert told[0][0]
