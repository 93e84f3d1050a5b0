"""Tests hostile and damaged jobs in the queue of a running tool, the Redis commands that a job
needs, and the jobs that `rq info` shows.
"""

import json
import os
import pickle
import re
import socket
import sqlite3
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue, Worker
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus

from embedded.programs import ROOT
from embedded.stack import free_port
from tests.support import servers
from tests.support.batches import FEATURES, batch, message
from tests.support.waiting import wait_until
from tool.known_job import KnownJob
from tool.worker import PartitionWorker
from wire.keys import DECLARATION, REPLAY_JOB, STORE_JOB, batch_key

pytestmark = pytest.mark.timeout(90)
QUEUE = "rq:queue:tool-0"
# This module writes a file when it is imported and when its function is called.
EVIL = """
import pathlib
MARK = pathlib.Path(__file__).with_name("executed")
MARK.touch()
def run(*_):
    MARK.touch()
"""


class Pickled:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (self._command,)


class Tool:
    """`python -m tool` with one worker, on a Redis of the test and an SQLite database."""

    def __init__(self, redis: Any, folder: Path) -> None:
        self.redis = redis
        self.database_url = f"sqlite:///{folder}/icu.sqlite"
        self.mark = folder / "executed"
        self.port = free_port()
        (folder / "evil.py").write_text(EVIL)
        self._environ = os.environ | {
            "REDIS_URL": f"unix://{folder}/redis.sock",
            "DATABASE_URL": self.database_url,
            "MODEL_URL": "http://127.0.0.1:9",
            "PARTITIONS": "1",
            "TOOL_METRICS_PORT": str(self.port),
            "PYTHONPATH": str(folder),
        }
        self._log = folder / "tool.log"

    def start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tool"], cwd=ROOT, env=self._environ, stderr=log
            )

    def put(self, name: str, data: bytes, **fields: Any) -> None:
        """Queues a job whose hash in Redis has these fields."""
        job = {"data": data, "status": "queued", "origin": "tool-0", "timeout": 60} | fields
        self.redis.hset(f"rq:job:{name}", mapping=job)
        self.redis.rpush(QUEUE, name)

    def store(self, *messages: bytes, after: int = 0) -> None:
        """Queues a batch as the buffer does."""
        found = batch(after, *messages)
        key = batch_key(found.stream, 0, found.last)
        self.redis.set(key, msgspec.msgpack.encode(found))
        queue = Queue("tool-0", connection=self.redis, serializer=JSONSerializer)
        queue.enqueue(STORE_JOB, key, job_id=f"s-0-{found.last}-1", job_timeout=-1)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        assert found, name
        return float(found[1])

    def wait(self, reached: Callable[[], bool]) -> None:
        wait_until(reached, str(reached), 60, self._log.read_text)

    def stored(self) -> list[int]:
        try:
            return [seq for (seq,) in servers.rows(self.database_url, "SELECT seq FROM readings")]
        except Exception:
            return []


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    with servers.redis_server(tmp_path) as connection:
        yield connection


@pytest.fixture
def tool(redis: Any, tmp_path: Path) -> Iterator[Tool]:
    """A tool that has stored its first batch."""
    declared = {"champion": {"model": "m", "version": "1", "features": FEATURES}, "shadows": []}
    redis.set(DECLARATION, json.dumps(declared))
    tool = Tool(redis, tmp_path)
    process = tool.start()
    try:
        tool.store(message(80.0))
        tool.wait(lambda: tool.stored() == [1])
        yield tool
    finally:
        process.terminate()
        process.wait(30)


def call(function: object, *arguments: object, instance: object = None) -> bytes:
    """The data of a job as RQ's JSON serializer writes them."""
    return json.dumps([function, instance, arguments, {}]).encode()


def test_a_job_can_run_only_the_two_functions_of_the_tool(tool: Tool) -> None:
    command = f"touch {tool.mark}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        hooks = [{"url": address, "job_status": status} for status in ("failed", "finished")]
        jobs: list[tuple[bytes, dict[str, Any]]] = [
            (call("os.system", command), {}),
            (zlib.compress(call("subprocess.getoutput", command)), {}),
            (call("evil.run"), {}),
            (call("tool.worker.os.system", command), {}),
            (call("tool.jobs.Jobs.store", command), {}),
            (call("clear", instance={"a": 1}), {}),
            (call(["os", "system"], command), {}),
            (call(None), {}),
            (pickle.dumps(("os.system", None, (command,), {})), {}),
            (pickle.dumps(Pickled(command)), {"meta": pickle.dumps(Pickled(command))}),
            (call("nothing"), {"failure_callback_name": "evil.run"}),
            (call("nothing"), {"stopped_callback_name": "evil.run", "webhooks": json.dumps(hooks)}),
            (call(STORE_JOB), {"failure_callback_name": "evil.run"}),
        ]
        for number, (data, fields) in enumerate(jobs):
            tool.put(f"evil-0-{number}-1", data, **fields)
        # The key of the job's batch is missing, so the job ends.
        tool.put("fine", call(STORE_JOB, "icu:batch:none"), success_callback_name="evil.run")
        tool.store(message(90.0), after=1)
        tool.wait(lambda: tool.stored() == [1, 2])
        assert not tool.mark.exists()
        with pytest.raises(BlockingIOError):
            listener.accept()
    tool.wait(lambda: tool.metric("icu_tool_failed_jobs_total") == len(jobs))
    [worker] = tool.redis.smembers("rq:workers")
    channel = worker.replace(b"rq:worker:", b"rq:pubsub:")
    assert tool.redis.publish(channel, '{"command":"shutdown"}') == 0
    assert tool.metric("icu_tool_restarts_total") == 0


def test_a_damaged_job_does_not_stop_the_worker(tool: Tool) -> None:
    good = call("nothing")
    tool.put("somebody", good, timeout="soon")
    tool.put("some-body-else-s-job", good, status="unheard of", created_at="yesterday")
    tool.put("bomb-0-1-1", zlib.compress(bytes(200_000_000)))
    tool.put("origin-0-1-1", good, origin="tool-1")
    tool.put("empty-0-1-1", b"")
    tool.redis.set("rq:job:text-0-1-1", "not a hash")
    tool.redis.rpush(QUEUE, "text-0-1-1", "lost-0-1-1", b"\xff\xfe", "a b", "a:b", "")
    # A killed worker leaves such jobs behind.
    tool.redis.rpush(f"{QUEUE}:intermediate", "somebody-else", b"\xff", "a b", "origin-0-1-1")
    tool.redis.zadd("rq:wip:tool-0", {"stranger:1": 2e9, b"\xff:1": 2e9})
    tool.store(message(90.0), after=1)
    tool.wait(lambda: tool.stored() == [1, 2])
    tool.wait(lambda: not tool.redis.exists(QUEUE, f"{QUEUE}:intermediate", "rq:wip:tool-0"))
    assert tool.metric("icu_tool_failed_jobs_total") >= 5
    assert tool.metric("icu_tool_restarts_total") == 0


def test_a_job_takes_few_commands_and_rq_info_counts_it(tool: Tool) -> None:
    """RQ's own worker would send 63 commands per job."""
    [worker] = Worker.all(connection=tool.redis)
    jobs, before, done = 100, commands(tool.redis), worker.successful_job_count
    for number in range(jobs):
        tool.put(f"s-0-{number}-1", call(STORE_JOB, "icu:batch:none"), timeout=-1)
    sent = 2 * jobs  # by `put`
    tool.wait(lambda: refreshed(worker).successful_job_count == done + jobs)
    tool.wait(lambda: refreshed(worker).get_state() == WorkerStatus.IDLE)
    assert (commands(tool.redis) - before - sent) / jobs < 25
    assert not tool.redis.keys("rq:job:*")
    assert not tool.redis.exists(QUEUE, f"{QUEUE}:intermediate", "rq:wip:tool-0")
    assert worker.total_working_time > 0


def test_a_job_whose_connection_to_redis_broke_stays_in_redis(redis: Any) -> None:
    def cut(*_: object) -> None:
        raise RedisConnectionError

    queue = Queue("tool-0", connection=redis, serializer=JSONSerializer, job_class=KnownJob)
    nothing: Any = None
    worker = PartitionWorker(queue, nothing, nothing, lambda: None)
    worker._functions = {REPLAY_JOB: cut}
    job = queue.enqueue(REPLAY_JOB, "stream", 1, "{}", job_id="r-0-1")
    with pytest.raises(RedisConnectionError):
        worker.execute_job(job, queue)
    assert (queue.failed_job_registry.count, redis.exists("rq:job:r-0-1")) == (0, 1)


def test_rq_info_shows_a_running_job_and_keeps_a_failed_one(tool: Tool) -> None:
    queue = Queue("tool-0", connection=tool.redis, serializer=JSONSerializer)
    [worker] = Worker.all(connection=tool.redis)
    with closing(sqlite3.connect(tool.database_url.removeprefix("sqlite:///"))) as database:
        database.execute("BEGIN IMMEDIATE")  # the job waits for the lock
        tool.store(message(90.0), after=1)
        tool.wait(lambda: queue.started_job_registry.get_job_ids(cleanup=False) == ["s-0-2-1"])
        assert refreshed(worker).get_state() == WorkerStatus.BUSY
        queue.started_job_registry.cleanup()  # as `rq info` does; the job must stay in the list
        assert queue.started_job_registry.get_job_ids(cleanup=False) == ["s-0-2-1"]
        database.rollback()
    tool.wait(lambda: tool.stored() == [1, 2])
    tool.put("s-0-3-1", call("os.system"), timeout=-1)
    tool.wait(lambda: queue.failed_job_registry.get_job_ids(cleanup=False) == ["s-0-3-1"])
    tool.wait(lambda: queue.started_job_registry.get_job_ids(cleanup=False) == [])
    tool.wait(lambda: refreshed(worker).get_state() == WorkerStatus.IDLE)
    assert worker.failed_job_count == 1


def commands(redis: Any) -> int:
    """The number of commands that Redis has processed."""
    return int(redis.info("stats")["total_commands_processed"])


def refreshed(worker: BaseWorker) -> BaseWorker:
    worker.refresh()  # type: ignore[no-untyped-call]
    return worker
