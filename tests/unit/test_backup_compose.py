"""Tests backups, and which commands a restore runs on a compose stack. A script takes the place of
Docker.
"""

import gzip
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backup import archive, compose
from embedded.programs import ROOT

DOCKER = """#!/bin/sh
printf '%s\\n' "$*" >>"$STATE/calls"
case "$*" in
    *" config "*) echo '{"name": "icu"}' ;;
    *" ps --services "*"--status restarting"*) echo tool ;;
    *" up "*)
        [ -e "$STATE/recovered" ] && exit 0
        touch "$STATE/recovered"
        echo "container icu-tooldb-1 is unhealthy" >&2
        exit 1 ;;
    *" mysqldump "*) cat /dev/urandom ;;
    *" tooldb mysql") cat >/dev/null ;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the calls of the script."""
    script = tmp_path / "docker"
    script.write_text(DOCKER)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", str(tmp_path))
    return tmp_path


def restore(folder: Path) -> "subprocess.CompletedProcess[str]":
    tables = gzip.compress(b"CREATE TABLE readings (id INT);")
    digests = {"tables": hashlib.sha256(tables).hexdigest()}
    folder.mkdir()
    (folder / "tables.gz").write_bytes(tables)
    contents = {"saved_at": "icu-20260101T000000Z", "tables": "mysql", "sha256": digests}
    (folder / "backup.json").write_text(json.dumps(contents))
    # -S: as on a machine with Docker alone, there are no packages.
    return subprocess.run(
        [sys.executable, "-S", "-m", "backup", "restore", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Slow:
    """A stack with tables; while they are read, `meanwhile` is called."""

    kind = "mysql"

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    def exists(self, part: str) -> bool:
        return part == "tables"

    @contextmanager
    def read(self, part: str) -> Iterator[BytesIO]:
        self._meanwhile()
        yield BytesIO(b"rows")

    def record(self, saved_at: int) -> None: ...


def test_two_backups_of_the_same_second_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=lambda zone: datetime(2026, 1, 1, tzinfo=zone))
    monkeypatch.setattr("backup.archive.datetime", clock)
    second: Any = Slow(lambda: None)

    def meanwhile() -> None:
        with pytest.raises(archive.BackupError):
            archive.save(second, tmp_path)

    first: Any = Slow(meanwhile)
    saved = archive.save(first, tmp_path)
    assert gzip.decompress((saved / "tables.gz").read_bytes()) == b"rows"
    with pytest.raises(archive.BackupError):
        archive.save(second, tmp_path)
    assert list(tmp_path.iterdir()) == [saved]


def test_two_copies_of_a_file_at_the_same_time_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "log.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE received (content)")
        content = [(os.urandom(10_000),) for _ in range(2_000)]
        connection.executemany("INSERT INTO received VALUES (?)", content)
    command = [sys.executable, "-c", compose.COPY, str(file)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        copy = tmp_path / "copy.sqlite"
        copy.write_bytes(process.communicate(timeout=30)[0])
        assert process.returncode == 0
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT * FROM received").fetchall() == content


def test_a_backup_that_cannot_be_written_ends_with_a_reason(docker: Path) -> None:
    # A file of more than a megabyte cannot be written, as on a full disk.
    done = subprocess.run(
        [
            *("sh", "-c", 'ulimit -f 2048; exec "$@"', "sh", sys.executable, "-S", "-m", "backup"),
            *("save", str(docker / "to"), "--stack", "compose"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert list((docker / "to").iterdir()) == []


def test_a_restore_starts_compose_waits_for_a_recovering_database_and_stops_a_failing_tool(
    docker: Path,
) -> None:
    done = restore(docker / "saved")
    assert done.returncode == 0, done.stderr
    calls = [line.split(" * ")[-1] for line in (docker / "calls").read_text().splitlines()]
    started = "up --detach --wait tooldb redis"
    flushed = next(call for call in calls if "FLUSHALL" in call)
    order = [started, started, "stop tool", flushed, "exec -T tooldb mysql"]
    order += ["run --rm -T migrate", "start tool"]
    assert [call for call in calls if call in order] == order
