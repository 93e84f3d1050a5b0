"""Real MySQL, MariaDB and Redis servers for tests."""

import getpass
import os
import shutil
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import mysql.connector
import pytest
from redis import Redis
from redis.exceptions import RedisError

from embedded.programs import ROOT
from embedded.redis_server import NoRedis, executable
from embedded.stack import free_port
from tests.support.waiting import wait_until
from wire.database import connect, is_sqlite, sqlite_path

CNF = ROOT / "tooldb" / "mysqld.cnf"
KINDS = ("sqlite", "mysql", "mariadb")


def missing(reason: str) -> NoReturn:
    """Skips the test, or fails it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}: CI must have one")
    pytest.skip(reason)


def require_docker() -> None:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], **QUIET).returncode:
        missing("no Docker engine")


def redis_program() -> str:
    """The path of a Redis server."""
    try:
        return executable()
    except NoRedis as error:
        missing(str(error))


@contextmanager
def mysql_server(disk: str = "", redo_log: str = "64M") -> Iterator[int]:
    """The port of a MySQL server with the settings of tooldb; root needs no password.

    disk: the size of its disk, such as `900m`; without it, half of the memory. redo_log: the
    capacity of the redo log.
    """
    require_docker()
    port, name = free_port(), f"icu-db-test-{uuid.uuid4().hex[:8]}"
    subprocess.run(
        [
            *("docker", "run", "--rm", "--detach", "--name", name),
            *("--publish", f"127.0.0.1:{port}:3306"),
            *("--tmpfs", f"/var/lib/mysql:size={disk or '50%'}"),
            *("--volume", f"{CNF}:/etc/mysql/conf.d/icu-stream.cnf:ro"),
            *("--env", "MYSQL_ALLOW_EMPTY_PASSWORD=yes", "--env", "MYSQL_DATABASE=tooldb"),
            *("--env", "MYSQL_INITDB_SKIP_TZINFO=yes"),
            *("mysql:9.7", "--innodb-buffer-pool-size=64M"),
            f"--innodb-redo-log-capacity={redo_log}",
        ],
        check=True,
        capture_output=True,
    )
    try:
        _wait(port, 300)
        yield port
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], **QUIET)


@contextmanager
def redis_server(folder: Path) -> Iterator[Any]:
    """A client of an empty Redis. The socket of the server is in `folder`."""
    program = redis_program()
    socket = folder / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", ""]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    client = Redis(unix_socket_path=str(socket))
    try:
        wait_until(lambda: _answers(client), "Redis answers", 60)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(10)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


class MariaDB:
    """A MariaDB server with its data in `folder`; root needs no password."""

    def __init__(self, folder: Path) -> None:
        install, program = shutil.which("mariadb-install-db"), shutil.which("mariadbd")
        if install is None or program is None:
            missing("no MariaDB")
        self.port = free_port()
        self._log = folder / "log"
        options = ["--no-defaults", f"--datadir={folder}/data", f"--user={getpass.getuser()}"]
        subprocess.run(
            [install, *options, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
        )
        self._command = [
            *(program, *options, f"--socket={folder}/sock", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"),
            "--innodb-log-file-size=16M",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        _wait(self.port, 60)

    def send(self, number: int) -> None:
        """Sends a signal to the server."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        self.send(signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Stops the server if it is running."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)


@contextmanager
def mariadb_server(folder: Path) -> Iterator[int]:
    """The port of a MariaDB with its data in `folder`; root needs no password."""
    server = MariaDB(folder)
    try:
        server.start()
        yield server.port
    finally:
        server.stop()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mounts an empty file system of this size on `folder`. Without the right to mount, the test is
    skipped, or fails in CI.
    """
    folder.mkdir()
    size = f"size={megabytes}m"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], **QUIET
    ).returncode:
        missing("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


QUIET: dict[str, Any] = {"capture_output": True, "check": False}


def _wait(port: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            as_root(port).close()
            return
        except mysql.connector.Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def as_root(port: int, **more: Any) -> Any:
    """A connection as root, in autocommit mode."""
    return mysql.connector.connect(
        host="127.0.0.1",
        port=port,
        user="root",
        autocommit=True,
        charset="utf8mb4",
        collation="utf8mb4_general_ci",
        **more,
    )


def new_database(kind: str, port: Callable[[str], int], folder: Path) -> str:
    """Creates an empty database; returns its URL. port: returns the port of a kind of server."""
    name = f"db_{uuid.uuid4().hex}"
    if kind == "sqlite":
        return f"sqlite:///{folder}/{name}.sqlite"
    number = port(kind)
    with closing(as_root(number)) as root:
        root.cursor().execute(f"CREATE DATABASE {name}")
    return f"mysql://root@127.0.0.1:{number}/{name}"


def copies(new_database: Callable[[str], str], fill: Callable[[str], None]) -> Callable[[str], str]:
    """A function that creates a database of a kind with the tables and rows of `fill`, and returns
    its URL. `fill` runs once per kind, because migrations take seconds; the other databases are
    copies.
    """
    filled: dict[str, str] = {}

    def copied(kind: str) -> str:
        if kind not in filled:
            url = new_database(kind)
            fill(url)
            filled[kind] = url
        url = new_database(kind)
        _copy(filled[kind], url)
        return url

    return copied


def _copy(source: str, target: str) -> None:
    """Copies all tables, rows and views into an empty database on the same server."""
    if is_sqlite(source):
        shutil.copyfile(sqlite_path(source), sqlite_path(target))
        return
    old = source.rpartition("/")[2]
    with closing(as_root(_port(target), database=target.rpartition("/")[2])) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SHOW FULL TABLES FROM {old}")
        found = cursor.fetchall()
        for name in (name for name, kind in found if kind == "BASE TABLE"):
            cursor.execute(f"CREATE TABLE {name} LIKE {old}.{name}")
            cursor.execute(f"INSERT INTO {name} SELECT * FROM {old}.{name}")
        for name in (name for name, kind in found if kind == "VIEW"):
            cursor.execute(f"SHOW CREATE VIEW {old}.{name}")
            cursor.execute(cursor.fetchone()[1].replace(f"`{old}`.", ""))


def _port(url: str) -> int:
    return urlsplit(url).port or 3306


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Runs a statement on a separate connection; returns its rows."""
    connection: Any = sqlite3.connect(sqlite_path(url)) if is_sqlite(url) else connect(url)
    with closing(connection):
        cursor = connection.cursor()
        cursor.execute(statement)
        found = cursor.fetchall()
        connection.commit()
    return [tuple(row) for row in found]
