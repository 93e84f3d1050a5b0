"""The dashboard's queries on MariaDB, which reads SQL as MySQL does: same rows, no scans."""

import getpass
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from dashboard.database import Database, StayKey
from dashboard.ward import WardReader
from tests.integration.test_dashboard import EACH_QUERY, QUERIES
from tests.support import seeded_ward
from tests.support.seeded_ward import MODEL, START, STREAM, fill

TABLES = ("readings", "stays", "vitals", "predictions", "pending", "rejected", "positions")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A MariaDB of this test's own, on a socket; its folder. Skips where there is none."""
    install, program = shutil.which("mariadb-install-db"), shutil.which("mariadbd")
    if install is None or program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no MariaDB here")
        pytest.skip("there is no MariaDB here")
    folder = tmp_path_factory.mktemp("db")
    user = f"--user={getpass.getuser()}"
    subprocess.run(
        [
            install,
            "--no-defaults",
            user,
            f"--datadir={folder}/data",
            "--auth-root-authentication-method=normal",
        ],
        check=True,
        capture_output=True,
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(program, "--no-defaults", user, f"--datadir={folder}/data"),
                *(f"--socket={folder}/sock", "--skip-networking"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield folder
    finally:
        process.terminate()
        process.wait(30)


def connect(folder: Path, **more: Any) -> Any:
    deadline = time.monotonic() + 30
    while True:
        try:
            return mysql.connector.connect(
                unix_socket=f"{folder}/sock",
                user="root",
                autocommit=True,
                charset="utf8mb4",
                collation="utf8mb4_general_ci",
                **more,
            )
        except mysql.connector.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def copy(source: Path, server: Path, name: str) -> None:
    """The rows of the SQLite file into a database of that name."""
    with closing(connect(server)) as to, closing(sqlite3.connect(source)) as rows:
        cursor = to.cursor()
        cursor.execute(f"CREATE DATABASE {name}")
        cursor.execute(f"USE {name}")
        code = [line.partition("--")[0] for line in seeded_ward.INIT.read_text().splitlines()]
        for statement in "\n".join(code).split(";"):
            if statement.strip():
                cursor.execute(statement)
        for table in TABLES:
            found = rows.execute(f"SELECT * FROM {table}").fetchall()
            if found:
                marks = ", ".join(["%s"] * len(found[0]))
                cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", found)
        cursor.execute(f"ANALYZE TABLE {', '.join(TABLES)}")
        cursor.fetchall()


@pytest.fixture(scope="module")
def histories(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases `small` and `large`: the same ward, with more history behind the second."""
    for name, discharged in (("small", 45), ("large", 450)):
        path = tmp_path_factory.mktemp(name) / "icu.sqlite"
        with seeded_ward.ward(path) as made:
            fill(made, 20, 8, discharged=discharged)
            for index in range(discharged):
                made.reject("no value", "{}", pat_id=1000 + index)
            made.commit()
        copy(path, server, name)
    return server


def handler_reads(cursor: Any, sql: str, arguments: tuple[object, ...]) -> int:
    """How many rows and index entries the server looked at."""
    cursor.execute("FLUSH STATUS")
    cursor.execute(sql.replace("?", "%s"), arguments)
    cursor.fetchall()
    cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
    return sum(int(count) for _, count in cursor.fetchall())


@pytest.mark.parametrize("name", EACH_QUERY)
def test_a_query_reads_no_more_rows_when_more_is_stored(name: str, histories: Path) -> None:
    reads = []
    for database in ("small", "large"):
        with closing(connect(histories, database=database)) as connection:
            reads.append(handler_reads(connection.cursor(), *QUERIES[name]))
    small, large = reads
    assert large <= small * 1.1 + 5


def test_mysql_and_sqlite_tell_the_same(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "icu.sqlite"
    with seeded_ward.ward(path) as made:
        fill(made, 4, 12, discharged=3)
        made.reject("no value", '{"pat_id":2}', pat_id=2)
        made.commit()
    copy(path, server, "same")
    genuine = mysql.connector.connect

    def through_socket(**given: Any) -> Any:
        for name in ("host", "port", "password", "read_timeout"):
            given.pop(name)
        return genuine(unix_socket=f"{server}/sock", **given)

    monkeypatch.setattr(mysql.connector, "connect", through_socket)
    told = []
    for url in (f"sqlite:///{path}", "mysql://root@localhost/same"):
        with closing(Database(url)) as database, database.snapshot():
            key = StayKey(2, START.date())
            told.append(
                (
                    WardReader(database).read(STREAM, MODEL, False),
                    database.positions(),
                    database.readings(STREAM, key, MODEL, datetime.fromisoformat("2150-03-01")),
                    database.rejected_of(STREAM, 2),
                    database.rejected_after(STREAM, 0, 10_000, 5),
                    database.prediction(STREAM, 5, MODEL),
                    database.vitals_of(STREAM, key),
                    database.stays_of(STREAM, 5),
                    database.pending(STREAM),
                )
            )
    assert told[0] == told[1]
    assert told[0][0] is not None
