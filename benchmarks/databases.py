"""The database server of a run: the one at DATABASE_URL, or MariaDB or MySQL from PATH, or SQLite.
Each benchmark gets its own empty database.
"""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mysql.connector

from benchmarks.processes import listener
from embedded.stack import free_port
from tool.database import connect as tool_database

# As in tooldb/mysqld.cnf, but without its binary log.
DURABLE = (
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=512M",
    "--skip-log-bin",
    "--skip-name-resolve",
)
START_SECONDS = 60


class CannotMeasure(Exception):
    """A benchmark cannot be measured; the message is the reason."""


class Server:
    """Creates databases. pid: the server's process, if it is visible."""

    name: str
    pid: int | None = None

    def fresh(self, name: str) -> str:
        """The URL of an empty database with the pipeline's tables."""
        raise NotImplementedError

    def drop(self, name: str) -> None:
        raise NotImplementedError


class SQLiteFiles(Server):
    """A file for each database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"SQLite {sqlite3.sqlite_version}"

    def fresh(self, name: str) -> str:
        self.drop(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return _with_tables(f"sqlite:///{self._folder / name}.sqlite")

    def drop(self, name: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            (self._folder / f"{name}.sqlite{suffix}").unlink(missing_ok=True)


class MySQLServer(Server):
    """A running server, and a user who may create databases on it."""

    def __init__(self, url: str) -> None:
        self._url = url.rsplit("/", 1)[0] if urlsplit(url).path else url
        with self._cursor() as cursor:
            cursor.execute("SELECT VERSION(), @@innodb_flush_log_at_trx_commit")
            version, flush = cursor.fetchone()
        self.name = version if "MariaDB" in version else f"MySQL {version}"
        if int(flush) != 1:
            self.name += f", innodb_flush_log_at_trx_commit={flush}"
        self.pid = listener(urlsplit(url).port or 3306)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        connection = open_database(f"{self._url}/")
        try:
            yield connection.cursor()
            connection.commit()
        finally:
            connection.close()

    def fresh(self, name: str) -> str:
        self.drop(name)
        with self._cursor() as cursor:
            cursor.execute(
                f"CREATE DATABASE icu_benchmark_{name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
            )
        return _with_tables(f"{self._url}/icu_benchmark_{name}")

    def drop(self, name: str) -> None:
        with self._cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS icu_benchmark_{name}")


@contextmanager
def server(folder: Path, url: str | None) -> Iterator[Server]:
    """Yields the MySQL server at `url`, or SQLite files in `folder` for any other URL. Without a
    URL, starts a server from PATH in `folder`, or yields SQLite files if PATH has none. Raises
    CannotMeasure if a server does not answer or start."""
    if url and not url.startswith("mysql://"):
        yield SQLiteFiles(folder)
    elif url:
        try:
            yield MySQLServer(url)
        except mysql.connector.Error as error:
            raise CannotMeasure(f"DATABASE_URL: {error}") from None
    elif program := shutil.which("mariadbd") or shutil.which("mysqld"):
        with _started(folder, program) as found:
            yield found
    else:
        yield SQLiteFiles(folder)


def _make_data(data: Path, program: str, user: list[str]) -> None:
    """Creates the system tables of a server."""
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    maker = (
        ["mariadb-install-db", "--no-defaults", "--skip-test-db"]
        if "MariaDB" in version.stdout
        else [program, "--no-defaults", "--initialize-insecure"]
    )
    made = subprocess.run(
        [*maker, f"--datadir={data}", *user], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise CannotMeasure(f"{maker[0]}: {(made.stderr or made.stdout)[-500:]}")


@contextmanager
def _started(folder: Path, program: str) -> Iterator[Server]:
    data, port = folder / "data", free_port()
    folder.mkdir(parents=True)
    user = ["--user=root"] if os.geteuid() == 0 else []
    _make_data(data, program, user)
    accounts = folder / "accounts.sql"
    accounts.write_text(
        "CREATE USER IF NOT EXISTS 'benchmark'@'127.0.0.1' IDENTIFIED BY 'benchmark';\n"
        "GRANT ALL ON *.* TO 'benchmark'@'127.0.0.1';\n"
    )
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(program, "--no-defaults", f"--datadir={data}", f"--socket={folder}/socket"),
                *(f"--pid-file={folder}/pid", "--bind-address=127.0.0.1", f"--port={port}"),
                *(f"--init-file={accounts}", *DURABLE, *user),
                # MySQL and MariaDB have different names for this setting.
                *("--loose-innodb-redo-log-capacity=512M", "--loose-innodb-log-file-size=512M"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C only reaches the benchmarks, which stop the server
        )
    try:
        url = f"mysql://benchmark:benchmark@127.0.0.1:{port}/"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                found = MySQLServer(url)
                break
            except mysql.connector.Error as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-1000:]
                    raise CannotMeasure(f"{program} did not start: {error}\n{tail}") from None
                time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(15)  # then it is killed, because its data are not needed
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _with_tables(url: str) -> str:
    database = tool_database(url)
    database.create_tables()
    database.close()
    return url


def open_database(url: str) -> Any:
    """A plain PEP 249 connection, for MySQL through mysql-connector's C extension. Its placeholder
    is `mark(url)`. Raises CannotMeasure without the C extension, because X would be too small.
    """
    if url.startswith("sqlite:///"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection
    if not mysql.connector.HAVE_CEXT:
        raise CannotMeasure("mysql-connector's C extension cannot be loaded")
    parts = urlsplit(url)
    database = parts.path.strip("/")
    return mysql.connector.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        charset="utf8mb4",
        collation="utf8mb4_general_ci",
        **({"database": database} if database else {}),
    )


def mark(url: str) -> str:
    return "?" if url.startswith("sqlite") else "%s"


def feature_bytes(url: str, stream: str) -> float:
    """The average number of bytes of a prediction's features, for the model with the largest
    average."""
    connection = open_database(url)
    cursor = connection.cursor()
    cursor.execute(
        "SELECT AVG(LENGTH(features)) AS bytes FROM predictions"
        f" WHERE stream = {mark(url)} GROUP BY model, version ORDER BY bytes DESC LIMIT 1",
        (stream,),
    )
    (found,) = cursor.fetchone()
    connection.close()
    return float(found)
