"""Tests commands of the documents in a MySQL server: the shell, recovery to a point in time, and a
full disk.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from embedded.programs import ROOT
from tests.integration.test_forget import address, fill, keys, left, run
from tests.support.servers import as_root, mysql_server, new_database, redis_server, rows
from tests.support.waiting import wait_until
from tool.database import connect
from training.database import snapshot
from wire.tables import TABLES

OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ALERTS = (ROOT / "docs" / "alerts.md").read_text()

# The time limit does not include the fixtures (`func_only`), because the server starts slowly.
pytestmark = pytest.mark.timeout(120, func_only=True)


class Server(NamedTuple):
    """A MySQL server with the redo log of tooldb on a small disk. container: its id."""

    port: int
    container: str

    def execute(self, *command: str, given: str = "") -> str:
        """Runs a command in the container; returns its output."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.container, *command],
            input=given,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def free(self) -> int:
        """Free megabytes of the disk."""
        asked = ("df", "--output=avail", "--block-size=1M", "/var/lib/mysql")
        return int(self.execute(*asked).split()[-1])

    def filled(self, folder: Path) -> str:
        """The URL of a new database with rows in all tables."""
        url = new_database("mysql", lambda _: self.port, folder)
        fill(url)
        return url


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with mysql_server(disk="900m", redo_log="512M") as port:
        listed = ["docker", "ps", "--quiet", "--filter", f"publish={port}"]
        yield Server(port, subprocess.check_output(listed, text=True).strip())


def checksums(url: str) -> list[tuple[object, ...]]:
    """The checksum of the rows of each table."""
    return rows(url, f"CHECKSUM TABLE {', '.join(TABLES)}")


def test_the_shell_shows_a_degree_sign(server: Server) -> None:
    statement = "SELECT CONVERT(0xC2B043 USING utf8mb4)"
    assert server.execute("mysql", "--skip-column-names", "-e", statement) == "°C\n"


def test_whole_tables_are_read_without_a_time_limit(server: Server, tmp_path: Path) -> None:
    url = server.filled(tmp_path)
    name = url.rpartition("/")[2]
    with closing(as_root(server.port, database=name)) as root:
        change = root.cursor().execute
        change("CREATE TABLE large (text TEXT)")
        change("INSERT INTO large VALUES (REPEAT('x', 60000))")
        for _ in range(9):
            change("INSERT INTO large SELECT text FROM large")
        root.commit()
        change("SET GLOBAL max_execution_time = 200")
        try:
            copied = server.execute(
                *("bash", "-o", "pipefail", "-c", f"mysqldump {name} large | (sleep 1; wc -c)")
            )
            # SLEEP returns 1 if the server ends it.
            with snapshot(url) as stored:
                assert stored.select("SELECT SLEEP(0.5)").fetchall() == [(0,)]
            with connect(url).session.unlimited() as cursor:
                cursor.execute("SELECT SLEEP(0.5)")
                assert cursor.fetchall() == [(0,)]
            assert rows(url, "SELECT SLEEP(0.5)") == [(1,)]
        finally:
            change("SET GLOBAL max_execution_time = 600000")
        change("DROP TABLE large")
    assert int(copied) > 512 * 60_000


def test_the_binary_log_brings_a_copy_to_a_point_in_time(server: Server, tmp_path: Path) -> None:
    [command] = re.findall(r"bash -o pipefail -c '(mysqlbinlog .*?)'", OPERATIONS, re.DOTALL)
    url = server.filled(tmp_path)

    def next_second() -> str:
        """The time, from its first moment on: the binary log counts in seconds."""
        [[now]] = rows(url, "SELECT utc_timestamp() + INTERVAL 1 SECOND")
        wait_until(lambda: rows(url, "SELECT utc_timestamp()") >= [(now,)], "the next second")
        return str(now)

    # The log from this time on has changes that the copy has too.
    times = {"start": next_second()}
    with closing(as_root(server.port, database=url.rpartition("/")[2])) as root:
        change = root.cursor().execute
        change(
            "INSERT INTO readings SELECT 'new', seq, pat_id, date_admission, measured_at,"
            " parameter, value FROM readings WHERE stream = 'a'"
        )
        change("UPDATE vitals SET n = n + 1 WHERE stream = 'a'")
        change("DELETE FROM stays WHERE stream = 'b'")
        whole = ("--no-tablespaces", "--add-drop-database", "--databases", url.rpartition("/")[2])
        copy = server.execute("mysqldump", *whole)
        change("UPDATE readings SET value = value + 1 WHERE stream = 'new' AND seq % 2 = 0")
        change("UPDATE vitals SET n = n + 1 WHERE stream = 'a'")
        change("DELETE FROM readings WHERE stream = 'a'")
        change("INSERT INTO positions VALUES ('new', 0, 7, 7, '2150-01-01 00:00:00', 2)")
        stored = checksums(url)
        times["stop"] = next_second()
        change("DELETE FROM readings")
        change("DELETE FROM predictions")
    server.execute("mysql", given=copy)
    assert checksums(url) != stored
    for name, at in times.items():
        command = re.sub(rf'--{name}-datetime=".*?"', f'--{name}-datetime="{at}"', command)
    server.execute("bash", "-o", "pipefail", "-c", command)
    assert checksums(url) == stored


def test_on_a_full_disk_the_documented_statement_frees_space_to_forget_stays(
    server: Server, tmp_path: Path
) -> None:
    [statement] = re.findall(r"mysql -e '(SET GLOBAL innodb_redo_log_capacity.*?)'", ALERTS)
    url = server.filled(tmp_path)
    server.execute("sh", "-c", "cat /dev/zero >/var/lib/mysql/ballast || true")
    assert server.free() == 0
    with closing(as_root(server.port)) as root:
        root.cursor().execute(statement)
    wait_until(lambda: server.free() > 400, "400 MB are free")
    with redis_server(tmp_path) as redis:
        assert run(url, "--stream", "a", redis=address(redis)) == 0
    assert keys(url, "readings") == left("readings", lambda row: row["stream"] == "b")
