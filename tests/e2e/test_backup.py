"""Tests that a backup of a running pipeline restores all rows, the champion and the shadows."""

import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from embedded.programs import ROOT
from tests.support.oracle import check
from tests.support.pipeline import Pipeline, synthetic
from tests.support.servers import rows
from wire.keys import BACKUP

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ward")
    return synthetic(folder, "--patients", "12", "--days", "3", "--seed", "1")


def run(pipeline: Pipeline, *command: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=pipeline.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def save(pipeline: Pipeline, folder: Path) -> Path:
    run(pipeline, "backup", "save", str(folder), "--stack", "local")
    (saved,) = folder.iterdir()
    return saved


def history(pipeline: Pipeline) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(pipeline.environ["MODEL_STATE"])) as connection:
        return connection.execute("SELECT * FROM changes").fetchall()


def test_a_pipeline_restored_over_later_rows_or_into_an_empty_stack_stores_all_rows_once(
    ward: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Pipeline(first, ward, REPLAY_RATE="40") as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 200)
        run(pipeline, "modelapi", "shadow", "news2", "2017")
        saved = save(pipeline, tmp_path / "backups")
        recorded = datetime.fromtimestamp(int(pipeline.redis.get(BACKUP)), UTC)
        assert saved.name == recorded.strftime("icu-%Y%m%dT%H%M%SZ")
        changes = history(pipeline)
        at_backup = pipeline.committed()
        # On a slow machine, the stream may have ended already.
        pipeline.wait(lambda: pipeline.committed() > at_backup + 50 or pipeline.done())
        run(pipeline, "modelapi", "unshadow", "news2")
    for folder in (first, second):
        later = Pipeline(folder, ward)
        run(later, "backup", "restore", str(saved), "--stack", "local")
        assert history(later) == changes
        assert not (folder / "icu.sqlite").stat().st_mode & 0o077
        with later:
            later.wait(later.settled)
            check(ward, later.database_url, "live")


@pytest.fixture(scope="module")
def finished(ward: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A running pipeline that has stored the whole stream."""
    with Pipeline(tmp_path_factory.mktemp("finished"), ward) as pipeline:
        pipeline.wait(pipeline.settled)
        yield pipeline


def test_a_restore_is_rejected_while_the_pipeline_runs(
    ward: Path, tmp_path: Path, finished: Pipeline
) -> None:
    saved = save(finished, tmp_path / "backups")
    run(finished, "backup", "restore", str(saved), "--stack", "local", code=1)
    check(ward, finished.database_url, "live")


def test_a_pipeline_without_its_rows_starts_again_with_the_same_models(
    ward: Path, finished: Pipeline
) -> None:
    """Deletes what docs/troubleshooting.md names: var/icu.sqlite* and var/redis/."""
    run(finished, "modelapi", "promote", "news2", "2017")
    changes = history(finished)
    for name in ("buffer", "tool", "redis"):
        finished.stop(name)
    for file in finished.folder.glob("icu.sqlite*"):
        file.unlink()
    shutil.rmtree(finished.folder / "redis")
    (finished.folder / "redis").mkdir()
    finished.start("redis", "tool", "buffer")
    finished.wait(finished.settled)
    check(ward, finished.database_url, "live")
    champion = "SELECT model, version FROM models WHERE role = 'champion'"
    assert rows(finished.database_url, champion) == [("news2", "2017")]
    assert history(finished) == changes
    assert changes


@pytest.mark.parametrize("damage", ["cut", "part missing", "digest missing", "of another kind"])
def test_restoring_a_damaged_backup_changes_nothing(
    ward: Path, tmp_path: Path, damage: str
) -> None:
    pipeline = Pipeline(tmp_path, ward)
    with closing(sqlite3.connect(tmp_path / "icu.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE readings (value)")
        connection.execute("INSERT INTO readings VALUES (1)")
    saved = save(pipeline, tmp_path / "backups")
    with closing(sqlite3.connect(tmp_path / "icu.sqlite")) as connection, connection:
        connection.execute("INSERT INTO readings VALUES (2)")
    tables, contents = saved / "tables.gz", saved / "backup.json"
    if damage == "cut":
        tables.write_bytes(tables.read_bytes()[:-1])
    elif damage == "part missing":
        tables.unlink()
    else:
        found = json.loads(contents.read_text())
        found |= {"tables": "mysql"} if damage == "of another kind" else {"sha256": None}
        contents.write_text(json.dumps(found))
    done = run(pipeline, "backup", "restore", str(saved), "--stack", "local", code=1)
    assert done.stderr.count("\n") == 1
    with closing(sqlite3.connect(tmp_path / "icu.sqlite")) as connection:
        assert connection.execute("SELECT value FROM readings").fetchall() == [(1,), (2,)]


def test_a_restore_that_fails_after_the_tables_leaves_no_later_position_in_the_queue(
    ward: Path, tmp_path: Path
) -> None:
    pipeline = Pipeline(tmp_path, ward)
    with closing(sqlite3.connect(tmp_path / "icu.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE readings (value)")
    run(pipeline, "modelapi", "promote", "news2", "2017")
    saved = save(pipeline, tmp_path / "backups")
    with closing(sqlite3.connect(tmp_path / "icu.sqlite")) as connection, connection:
        connection.execute("INSERT INTO readings VALUES (1)")
    models, queue = (Path(pipeline.environ[key]) for key in ("MODEL_STATE", "REDIS_FOLDER"))
    models.unlink()
    (models / "in the way").mkdir(parents=True)
    queue.mkdir(exist_ok=True)
    (queue / "dump.rdb").touch()
    done = run(pipeline, "backup", "restore", str(saved), "--stack", "local", code=1)
    assert "Is a directory" in done.stderr
    assert done.stderr.count("\n") == 1
    with closing(sqlite3.connect(tmp_path / "icu.sqlite")) as connection:
        assert not connection.execute("SELECT value FROM readings").fetchall()
    assert not list(queue.iterdir())


# A compose project in which the buffer and the tool run, and whose database has no space.
DOCKER = """#!/bin/sh
echo "$*" >>"$0.log"
case $* in
    *" ps --services "*) echo buffer; echo tool ;;
    *" tooldb mysql") cat >/dev/null; echo "no space" >&2; exit 1 ;;
esac
"""


def test_a_failed_restore_with_compose_starts_no_program_and_names_those_that_it_stopped(
    tmp_path: Path,
) -> None:
    docker, saved = tmp_path / "docker", tmp_path / "saved"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    saved.mkdir()
    tables = gzip.compress(b"SELECT 1")
    (saved / "tables.gz").write_bytes(tables)
    digests = {"tables": hashlib.sha256(tables).hexdigest()}
    contents = {"saved_at": "now", "tables": "mysql", "sha256": digests}
    (saved / "backup.json").write_text(json.dumps(contents))
    done = subprocess.run(
        [sys.executable, "-m", "backup", "restore", str(saved), "--stack", "compose"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("backup: no space; ")
    assert done.stderr.endswith("docker compose start buffer tool\n")
    called = (tmp_path / "docker.log").read_text().splitlines()
    assert any(line.endswith(" stop buffer tool") for line in called)
    assert not any(" start " in line for line in called)


def test_a_backup_that_fails_leaves_nothing_behind(ward: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, ward)
    (tmp_path / "icu.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    run(pipeline, "backup", "save", str(tmp_path / "backups"), "--stack", "local", code=1)
    assert not list((tmp_path / "backups").iterdir())
    shutil.rmtree(tmp_path / "backups")
