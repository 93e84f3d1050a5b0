"""Measures each stage separately, and its raw limit. The stages after the queue are in
`tool_stages`."""

import asyncio
import logging
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import aiohttp
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from benchmarks import request_cpu, tool_stages
from benchmarks.bench import Bench, Result, in_turn, rate, rates, seconds
from benchmarks.loopback import receive, sender
from benchmarks.pipeline import Pipeline
from benchmarks.tool_stages import BATCH
from buffer.queues import Queues
from buffer.sse import EventParser
from hospital.replay import Replay
from tool.data_handler import DataHandler
from tool.database import Database
from tool.jobs import Step
from tool.known_job import KnownJob
from tool.worker import PartitionWorker
from wire import scripts
from wire.batches import Batch, Position, RawMessage, partition_of


class IdleWorker(PartitionWorker):
    """The tool's worker, with one job that does nothing."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue, cast(Database, None), cast(DataHandler, None), lambda: None)
        self._functions = {"nothing": self._nothing}

    def _nothing(self, *steps: Step) -> None:
        for step in steps:
            scripts.run(self.connection, step())


def run(bench: Bench) -> Iterator[Result]:
    rows = 100_000 if bench.quick else 500_000
    ward = bench.ward(2_000, rows, 0.3)
    url = bench.server.fresh("stages")
    with bench.pipeline(ward.folder, url) as pipeline:
        pipeline.ready("hospital")
        yield from _hospital(bench, pipeline)
        with Replay(ward.folder, "hindsight") as replay:
            events = [event.encode() for some in replay.events(0) for event in some]
        yield _reading(bench, events)
        messages = [event.partition(b"\ndata: ")[2][:-2] for event in events]
        pipeline.ready("redis")
        yield _enqueue(pipeline, messages)
        yield _no_op(bench, pipeline)
        yield tool_stages.parse(messages)
        yield tool_stages.features(messages)
        yield from tool_stages.insert(bench, url)
        pipeline.ready("modelapi")
        yield from tool_stages.model(pipeline)
        yield request_cpu.measure(pipeline)
    bench.server.drop("stages")


def _hospital(bench: Bench, pipeline: Pipeline) -> Iterator[Result]:
    port, total = int(pipeline.environ["HOSPITAL_PORT"]), pipeline.messages
    got = 0

    def read() -> None:
        nonlocal got
        got = receive(port)

    read()  # the first run only warms up
    with tempfile.NamedTemporaryFile(dir=bench.folder) as file:
        file.write(b"x" * got)
        file.flush()

        def bare() -> float:
            with sender(Path(file.name), 5) as raw_port:
                return total * 5 / seconds(lambda: receive(raw_port))

        speed, raw = in_turn(lambda: total / seconds(read), bare, 3)
    yield Result(
        "hospital",
        "hospital → client, HTTP",
        speed,
        "messages/s",
        raw,
        "the same number of bytes over loopback",
        {"messages": total, "bytes_per_message": round(got / total, 1)},
    )


def _reading(bench: Bench, events: list[bytes]) -> Result:
    with tempfile.NamedTemporaryFile(dir=bench.folder) as file:
        body = b"".join(events)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        file.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        file.flush()

        def read() -> float:
            with sender(Path(file.name), 1) as port:
                return len(events) / seconds(lambda: asyncio.run(_read(port, len(events))))

        def bare() -> float:
            with sender(Path(file.name), 1) as port:
                return len(events) / seconds(lambda: receive(port))

        speed, raw = in_turn(read, bare, 3)
    return Result(
        "sse",
        "SSE reading and partitioning (buffer)",
        speed,
        "messages/s",
        raw,
        "the same number of bytes over loopback",
    )


async def _read(port: int, total: int) -> None:
    parser, count = EventParser(), 0
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 20) as session,
        session.get(f"http://127.0.0.1:{port}/sub") as response,
    ):
        async for chunk in response.content.iter_any():
            for event in parser.feed(chunk):
                partition_of(event.data, 2)
                count += 1
    assert count == total


def _enqueue(pipeline: Pipeline, messages: list[bytes]) -> Result:
    redis = pipeline.redis
    queues = Queues(redis)
    queues.take_lease()
    queues.load()
    last = 0

    def enqueue() -> int:
        nonlocal last
        now = time.time()
        some = [
            RawMessage(last + n + 1, now, message) for n, message in enumerate(messages[:BATCH])
        ]
        batch = Batch("0bench", 0, last, some)
        last = batch.last
        queues.enqueue(Position("0bench", last, {0: last}, 2), [batch])
        return len(some)

    def push() -> int:
        with redis.pipeline(transaction=False) as pipe:
            for message in messages[:BATCH]:
                pipe.rpush("bare", message)
            pipe.execute()
        return BATCH

    speed, raw = rates(enqueue, push)
    redis.flushall()
    return Result(
        "enqueue",
        f"enqueue, {BATCH:,} messages per job (buffer)",
        speed,
        "messages/s",
        raw,
        "RPUSH of each, in a bare pipeline",
    )


def _no_op(bench: Bench, pipeline: Pipeline) -> Result:
    jobs = 50 if bench.quick else 250
    redis: Redis = pipeline.redis
    queue = Queue("noop", connection=redis, serializer=JSONSerializer, job_class=KnownJob)
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def work() -> float:
        queue.enqueue_many(
            [
                Queue.prepare_data("nothing", job_id=f"noop-0-{number}-1", result_ttl=0, timeout=-1)
                for number in range(jobs)
            ]
        )
        worker = IdleWorker(queue)
        return jobs / seconds(lambda: worker.work(burst=True, logging_level="CRITICAL"))

    def bare() -> int:
        redis.rpush("bare", b"job")
        redis.blmove("bare", "taken", 1)
        redis.lrem("taken", 1, b"job")  # type: ignore[arg-type]
        return 1

    speed, raw = in_turn(work, lambda: rate(bare, 0.2), 4)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    redis.flushall()
    return Result(
        "rq", "RQ, job that does nothing", speed, "jobs/s", raw, "RPUSH, BLMOVE, LREM of each"
    )
