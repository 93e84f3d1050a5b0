"""Tests that no message is lost or doubled when faults occur at chosen points of a batch."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from rq import Queue
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from chaos.embedded import EmbeddedStack
from chaos.faults import Fault, all_faults
from chaos.run import finished, run
from embedded.programs import ROOT
from embedded.stack import free_port
from tests.support import alarm_oracle
from tests.support import pipeline as pipelines
from tests.support.oracle import check, table
from tests.support.pipeline import Pipeline, synthetic
from tool.rejections import DEAD_LETTER

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ward")
    return synthetic(folder, "--patients", "12", "--days", "3", "--seed", "1")


Start = Callable[..., Pipeline]


@pytest.fixture
def failing(ward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pipeline]:
    """A function that makes a pipeline whose tool fails at chosen points; see
    tests/support/failing_tool.py.
    """

    def start(points: str, part: str = "", rate: str = "600") -> Pipeline:
        monkeypatch.setitem(pipelines.COMMANDS, "tool", "exec python -m tests.support.failing_tool")
        return Pipeline(
            tmp_path,
            ward,
            REPLAY_RATE=rate,
            FAIL_POINTS=points,
            FAIL_PART=part,
            FAIL_MARKS=str(tmp_path),
        )

    return start


def mend(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the next start use the real tool."""
    monkeypatch.setitem(pipelines.COMMANDS, "tool", "exec python -m tool")


def mark(pipeline: Pipeline, point: str) -> int:
    """The id of the process that has failed at the point; 0 if none has."""
    path = pipeline.folder / point
    return int(path.read_text() or 0) if path.exists() else 0


def test_a_running_tool_ends_when_a_newer_version_has_upgraded_the_tables(
    ward: Path, tmp_path: Path
) -> None:
    with Pipeline(tmp_path, ward, REPLAY_RATE="600") as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 300)
        path = pipeline.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            [(version,)] = connection.execute("SELECT version_num FROM alembic_version")
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            stored = connection.execute("SELECT part, seq FROM positions ORDER BY part").fetchall()
            pipeline.wait(lambda: pipeline.ended() == ["tool"])
            assert "9999" in pipeline.log("tool").splitlines()[-1]
            assert (
                stored
                == connection.execute("SELECT part, seq FROM positions ORDER BY part").fetchall()
            )
            connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        pipeline.start("tool")
        pipeline.wait(pipeline.settled)
        check(ward, pipeline.database_url, "live")


def stop_between_transactions(name: str, pipeline: Pipeline) -> None:
    """Stops a program with SIGSTOP while none of its processes holds SQLite's lock."""
    path = pipeline.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        pipeline.send(name, signal.SIGSTOP)
        pipeline.wait(lambda: all(map(is_stopped, pipeline.pids(name))))
        database.execute("ROLLBACK")


def is_stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def second(name: str, pipeline: Pipeline) -> "subprocess.Popen[bytes]":
    """Starts a second process of a program. Its output goes to NAME-2.log."""
    with (pipeline.folder / f"{name}-2.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", name],
            cwd=ROOT,
            env=pipeline.environ | {f"{name.upper()}_METRICS_PORT": str(free_port())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def test_no_message_is_lost_or_doubled_when_a_worker_is_killed_at_any_point(
    ward: Path, failing: Start
) -> None:
    points = {"dequeued": 200, "predicted": 400, "inserted": 600, "committed": 800}
    points |= {"acknowledged": 1000}
    with failing(" ".join(f"{name}={at}" for name, at in points.items())) as pipeline:
        pipeline.wait(pipeline.settled, 120)
        assert all(mark(pipeline, point) for point in points), "a fail point was not reached"
        # The supervisor may log the last death after the stream is stored.
        died = "died (-9); restarting it"
        pipeline.wait(lambda: pipeline.log("tool").count(died) == len(points))
        check(ward, pipeline.database_url, "live")


@pytest.mark.parametrize("point", ["predicted-stop", "committed-stop"])
def test_a_stopped_tool_whose_partitions_another_took_over_changes_nothing(
    ward: Path, failing: Start, point: str
) -> None:
    """After SIGCONT, the tool changes no row and does not move the acknowledged position back."""
    with failing(f"{point}=300") as pipeline:
        pipeline.wait(lambda: mark(pipeline, point) != 0)
        stop_between_transactions("tool", pipeline)
        other = second("tool", pipeline)
        try:
            pipeline.wait(pipeline.done)
            pipeline.send("tool", signal.SIGCONT)
            if point == "predicted-stop":
                pipeline.wait(lambda: "another worker was faster" in pipeline.log("tool"))
            # The tool releases its leases only after its workers have finished their jobs.
            pipeline.wait(lambda: pipeline.log("tool").count("lease released") >= 2)
            pipeline.wait(pipeline.settled)
        finally:
            os.killpg(other.pid, signal.SIGKILL)
            other.wait()
        check(ward, pipeline.database_url, "live")


def test_a_worker_stopped_inside_its_transaction_stores_its_batch_once(
    ward: Path, failing: Start
) -> None:
    """While it is stopped, the worker holds SQLite's lock."""
    with failing("inserted-stop=300") as pipeline:
        pipeline.wait(lambda: mark(pipeline, "inserted-stop") != 0)
        other = second("tool", pipeline)
        try:
            os.kill(mark(pipeline, "inserted-stop"), signal.SIGCONT)
            pipeline.wait(pipeline.settled)
        finally:
            os.killpg(other.pid, signal.SIGKILL)
            other.wait()
        check(ward, pipeline.database_url, "live")


def test_a_second_buffer_stands_by_and_takes_over(ward: Path, tmp_path: Path) -> None:
    with Pipeline(tmp_path, ward, REPLAY_RATE="80") as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 100)
        other = second("buffer", pipeline)
        try:
            pipeline.wait(lambda: "standing by" in pipeline.log("buffer-2"))
            # The first buffer is stopped for so long that its lease expires.
            pipeline.send("buffer", signal.SIGSTOP)
            pipeline.wait(lambda: "reading after message" in pipeline.log("buffer-2"))
            before = pipeline.committed()
            pipeline.wait(lambda: pipeline.committed() > before + 100)
            pipeline.send("buffer", signal.SIGCONT)
            pipeline.wait(pipeline.settled)
        finally:
            os.killpg(other.pid, signal.SIGKILL)
            other.wait()
        check(ward, pipeline.database_url, "live")


def test_messages_that_fail_or_crash_the_worker_are_dead_letters_until_the_fault_is_mended(
    ward: Path, failing: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing("poisoned=301 deadly=601") as pipeline:
        pipeline.wait(pipeline.settled)
        rejected = table(pipeline.database_url, "rejected").sort_values("seq", ignore_index=True)
        assert rejected["seq"].tolist() == [301, 601]
        assert rejected["reason"][0].startswith(f"{DEAD_LETTER}RuntimeError")
        assert rejected["reason"][1].startswith(f"{DEAD_LETTER}Poison")
        assert 1 <= len(failed_jobs(pipeline)) <= 2  # one if both messages were in one batch
        assert list(pipeline.redis.scan_iter("icu:attempts:*")) == []

        again = replay(pipeline)
        assert (again.returncode, again.stdout) == (1, "0 messages replayed, 2 still rejected\n")
        assert list(pipeline.redis.scan_iter("icu:attempts:*")) == []

        pipeline.stop("tool")
        mend(pipeline, monkeypatch)
        pipeline.start("tool")
        again = replay(pipeline)
        assert again.stdout == "2 messages replayed, 0 still rejected\n", pipeline.log("tool")
        assert again.returncode == 0
        assert table(pipeline.database_url, "rejected").empty
        pipeline.wait(pipeline.settled)
        stream = table(pipeline.database_url, "readings")
        assert {301, 601} <= set(stream["seq"])
        for seq in (301, 601):  # the champion and its shadow predict only for open stays
            predicted = table(pipeline.database_url, "predictions", f"seq = {seq}")
            assert sorted(predicted["version"]) in ([], ["1", "2"])


def failed_jobs(pipeline: Pipeline) -> list[str]:
    """The ids of the jobs that `rq info` counts as failed."""
    return [
        job
        for part in range(2)
        for job in FailedJobRegistry(
            queue=Queue(f"tool-{part}", connection=pipeline.redis, serializer=JSONSerializer)
        ).get_job_ids()
    ]


def replay(pipeline: Pipeline, *reason: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tool", "replay", *reason],
        cwd=ROOT,
        env=pipeline.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def queued(pipeline: Pipeline) -> bool:
    """Whether several batches of each partition are queued."""
    batches = len(list(pipeline.redis.scan_iter("icu:batch:*")))
    return batches > 5 and all(pipeline.redis.llen(f"rq:queue:tool-{n}") > 2 for n in range(2))


def spoil_payload(pipeline: Pipeline) -> None:
    pipeline.redis.set(middle_batch(pipeline), b"\xc1 not msgpack")


def lose_payload(pipeline: Pipeline) -> None:
    pipeline.redis.delete(middle_batch(pipeline))


def middle_batch(pipeline: Pipeline) -> bytes:
    """The key of a batch in the middle of all queued ones; the later batches of its partition must
    wait for it."""
    keys = sorted(pipeline.redis.scan_iter("icu:batch:*"), key=lambda k: int(k.rsplit(b"-", 1)[1]))
    return bytes(keys[len(keys) // 2])


def lose_a_job(pipeline: Pipeline) -> None:
    """Removes a job as if Redis had sent it to a dead connection."""
    pipeline.redis.lrem(b"rq:queue:tool-0", 0, pipeline.redis.lindex(b"rq:queue:tool-0", 1))


def leave_a_job_unfinished(pipeline: Pipeline) -> None:
    pipeline.redis.lmove("rq:queue:tool-0", "rq:queue:tool-0:intermediate")


def lose_position(pipeline: Pipeline) -> None:
    pipeline.redis.delete("icu:position")


def spoil_position(pipeline: Pipeline) -> None:
    pipeline.redis.set("icu:position", b'{"stream": ')


def spoil_declaration(pipeline: Pipeline) -> None:
    pipeline.redis.set("icu:declaration", b'{"champion": {}}')


def forget_all_but_one_acknowledgement(pipeline: Pipeline) -> None:
    """Wipes Redis, and writes the acknowledgement of one worker, because a worker may acknowledge
    right after a wipe, before all positions are written again.
    """
    stored = table(pipeline.database_url, "positions").set_index("part")["seq"]
    stream = table(pipeline.database_url, "positions")["stream"].iloc[0]
    pipeline.redis.flushall()
    pipeline.redis.hset("icu:committed", f"{stream}/{stored.idxmax()}", int(stored.max()))


Damage = Callable[[Pipeline], None]


@pytest.mark.parametrize(
    "damages",
    [
        [[lose_payload, lose_position], [lose_a_job, spoil_declaration]],
        [
            [spoil_payload, leave_a_job_unfinished],
            [spoil_position],
            [forget_all_but_one_acknowledgement],
        ],
    ],
    ids=["lost", "damaged"],
)
def test_messages_that_redis_has_lost_or_damaged_are_read_again(
    ward: Path, tmp_path: Path, damages: list[list[Damage]]
) -> None:
    # Few messages wait, so that the stream does not end before the last damage.
    settings = {"REPLAY_RATE": "120", "BATCH_MAX": "20", "QUEUE_MAX": "300"}
    with Pipeline(tmp_path, ward, **settings) as pipeline:
        pipeline.wait(lambda: pipeline.committed() > 200)
        for damage in damages:
            pipeline.kill("tool")
            pipeline.wait(lambda: queued(pipeline))
            read = pipeline.position()["seq"]
            for harm in damage:
                harm(pipeline)
            pipeline.start("tool")
            pipeline.wait(lambda read=read: pipeline.stored_up_to() >= read)
            # The next damage needs waiting batches of both partitions.
            ahead = pipeline.committed()
            pipeline.wait(lambda ahead=ahead: pipeline.stored_up_to() >= ahead)
        pipeline.wait(pipeline.settled)
        check(ward, pipeline.database_url, "live")


def test_a_wipe_before_the_first_stored_batch_loses_nothing(ward: Path, failing: Start) -> None:
    with failing("predicted-stop=1", part="1", rate="400") as pipeline:
        point = "predicted-stop"
        pipeline.wait(lambda: mark(pipeline, point) != 0 and pipeline.committed() > 200)
        assert set(table(pipeline.database_url, "positions")["part"]) == {0}
        pipeline.redis.flushall()
        os.kill(mark(pipeline, point), signal.SIGKILL)
        pipeline.wait(pipeline.settled)
        check(ward, pipeline.database_url, "live")


def test_the_number_of_partitions_can_change_during_a_stream(ward: Path, tmp_path: Path) -> None:
    with Pipeline(tmp_path, ward, REPLAY_RATE="120") as pipeline:
        for before, after in (("2", "3"), ("3", "1")):
            goal = pipeline.committed() + 200
            pipeline.wait(lambda goal=goal: pipeline.committed() > goal)
            for program in ("buffer", "tool"):
                pipeline.kill(program)
            if after == "1":  # the database has the former number
                pipeline.redis.flushall()
            pipeline.environ["PARTITIONS"] = after
            pipeline.start("buffer", "tool")
            said = f"partitions change from {before} to {after}"
            pipeline.wait(lambda said=said: said in pipeline.log("buffer"))
        pipeline.wait(pipeline.settled)
        check(ward, pipeline.database_url, "live")


def test_a_short_fixed_schedule_of_faults_loses_nothing(ward: Path, tmp_path: Path) -> None:
    """A short form of `make chaos`."""
    with EmbeddedStack(tmp_path, ward, rate=60) as stack:
        stack.wait(lambda: stack.committed() > 50)
        known = {fault.name: fault for fault in all_faults(stack, random.Random(1), pause=3)}
        names = [
            "kill -9 one worker of tool",
            "redis: last second of the AOF lost",
            "model: 413",
            "stop redis for 3 s",
            "redis: FLUSHALL",
            "kill -9 buffer",
        ]
        planned: list[tuple[float, Fault]] = [(0.5, known[name]) for name in names]
        recoveries = run(stack, 60, planned)
        assert [recovery.fault.name for recovery in recoveries] == names
        assert all(recovery.stored < float("inf") for recovery in recoveries)
        stack.hurry()
        stack.wait(lambda: finished(stack))
        check(ward, stack.database_url, "live")
        alarm_oracle.check(stack.database_url)
