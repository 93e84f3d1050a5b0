"""Measures each stage separately, and its raw limit."""

import asyncio
import logging
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import joblib
import msgspec
import numpy as np
from msgspec.structs import astuple
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from benchmarks.bench import INSERT, Bench, Result, rate, readings, seconds
from benchmarks.databases import mark, open_database
from benchmarks.loopback import receive, sender
from benchmarks.pipeline import Pipeline
from buffer.queues import Queues
from buffer.sse import EventParser
from embedded.stack import ROOT
from hospital.replay import Replay
from tool.database import Changes, connect
from tool.features import FeatureSet, Stay
from tool.model_client import Model, ModelClient
from wire.batches import Batch, Position, RawMessage, partition_of
from wire.features import Feature
from wire.messages import decode
from wire.tables import PredictionRow, ReadingRow

BATCH = 1_000
FORMULA = (
    Feature.parse("age", required=True),
    Feature.parse("last_blood_pressure", required=True),
    Feature.parse("rmean_respiration_rate", required=True),
    Feature.parse("standard_deviation_temperature", fill=0.0),
)


def nothing() -> None:
    """The job of the RQ stage."""


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
        yield _parse(messages)
        yield _features(messages)
        yield from _insert(bench, url)
        pipeline.ready("modelapi")
        yield from _model(pipeline)
    bench.server.drop("stages")


def _hospital(bench: Bench, pipeline: Pipeline) -> Iterator[Result]:
    port, total = int(pipeline.environ["HOSPITAL_PORT"]), pipeline.messages
    receive(port)  # once to warm up
    got = 0

    def read() -> None:
        nonlocal got
        got = receive(port)

    speed = total / seconds(read)
    with tempfile.NamedTemporaryFile(dir=bench.folder) as file:
        file.write(b"x" * got)
        file.flush()
        with sender(Path(file.name), 5) as raw_port:
            raw = total * 5 / seconds(lambda: receive(raw_port))
    yield Result(
        "hospital",
        "hospital → client, HTTP",
        speed,
        "messages/s",
        raw,
        "as many bytes over loopback",
        {"messages": total, "bytes_per_message": round(got / total, 1)},
    )


def _reading(bench: Bench, events: list[bytes]) -> Result:
    with tempfile.NamedTemporaryFile(dir=bench.folder) as file:
        body = b"".join(events)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        file.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        file.flush()
        with sender(Path(file.name), 1) as port:
            speed = len(events) / seconds(lambda: asyncio.run(_read(port, len(events))))
        with sender(Path(file.name), 1) as port:
            raw = len(events) / seconds(lambda: receive(port))
    return Result(
        "sse",
        "SSE reading and partitioning (buffer)",
        speed,
        "messages/s",
        raw,
        "as many bytes over loopback",
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

    speed = rate(enqueue)
    redis.flushall()
    raw = rate(push)
    redis.flushall()
    return Result(
        "enqueue",
        f"enqueue, {BATCH:,} messages a job (buffer)",
        speed,
        "messages/s",
        raw,
        "RPUSH of each, in a bare pipeline",
    )


def _no_op(bench: Bench, pipeline: Pipeline) -> Result:
    jobs = 200 if bench.quick else 1_000
    redis: Redis = pipeline.redis
    queue = Queue("noop", connection=redis, serializer=JSONSerializer)
    queue.enqueue_many(
        [
            Queue.prepare_data("benchmarks.stages.nothing", result_ttl=0, timeout=-1)
            for _ in range(jobs)
        ]
    )
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker = SimpleWorker([queue], connection=redis, serializer=JSONSerializer)
    worker.log_job_description = False
    speed = jobs / seconds(lambda: worker.work(burst=True, logging_level="CRITICAL"))
    for number, handler in handlers.items():
        signal.signal(number, handler)

    def bare() -> int:
        redis.rpush("bare", b"job")
        redis.blmove("bare", "taken", 1)
        redis.lrem("taken", 1, b"job")  # type: ignore[arg-type]
        return 1

    raw = rate(bare)
    redis.flushall()
    return Result(
        "rq", "RQ, job that does nothing", speed, "jobs/s", raw, "RPUSH, BLMOVE, LREM of each"
    )


def _parse(messages: list[bytes]) -> Result:
    bare = msgspec.json.Decoder()

    def parse() -> int:
        for message in messages[:10_000]:
            decode(message)
        return 10_000

    def raw() -> int:
        for message in messages[:10_000]:
            bare.decode(message)
        return 10_000

    return Result(
        "parse",
        "parse and check (tool)",
        rate(parse),
        "messages/s",
        rate(raw),
        "msgspec to a dict, unchecked",
    )


def _features(messages: list[bytes]) -> Result:
    decoded: list[Any] = [msgspec.json.decode(message) for message in messages[:50_000]]
    given = [(row["pat_id"], float(row["hour"]), row["parameter"], row["value"]) for row in decoded]
    features = FeatureSet(FORMULA)

    def compute() -> int:
        stays: dict[int, Stay] = {}
        for pat_id, at, parameter, value in given:
            stay = stays.get(pat_id)
            if stay is None:
                stay = stays[pat_id] = Stay(features.windows, age=60.0)
            stay.add(at, parameter, value)
            features.row(stay)
        return len(given)

    def bare() -> int:
        sums: dict[tuple[int, str], tuple[int, float, float]] = {}
        for pat_id, _, parameter, value in given:
            n, mean, m2 = sums.get((pat_id, parameter), (0, 0.0, 0.0))
            delta = value - mean
            mean += delta / (n + 1)
            sums[pat_id, parameter] = (n + 1, mean, m2 + delta * (value - mean))
        return len(given)

    return Result(
        "features",
        "statistics and features (tool)",
        rate(compute),
        "messages/s",
        rate(bare),
        "n, mean and m2 in a bare loop",
    )


def _insert(bench: Bench, url: str) -> Iterator[Result]:
    database = connect(url)
    now = "2150-01-01 00:00:00.000"
    for key, predicted in (("insert", False), ("insert predicted", True)):
        calls = [
            readings(start, BATCH) for start in range(1, 20_000 if bench.quick else 100_000, BATCH)
        ]
        changes = []
        for rows in calls:
            change = Changes(f"0{key[6:8]}", 0, rows[0][1] - 1, rows[-1][1], now)
            change.readings = [ReadingRow(change.stream, *row[1:]) for row in rows]
            if predicted:
                change.predictions = [_prediction(change.stream, row, now) for row in rows]
            changes.append(change)

        def commit(changes: list[Changes] = changes) -> None:
            for change in changes:
                database.commit(change)

        speed = len(calls) * BATCH / seconds(commit)
        yield Result(
            key,
            f"insert of {BATCH:,} readings" + (" and as many predictions" if predicted else ""),
            speed,
            "messages/s",
            _executemany_both(bench, calls, now) if predicted else bench.x,
            "executemany into both tables" if predicted else "X: bare executemany",
        )
    database.close()


def _prediction(stream: str, row: tuple[Any, ...], now: str) -> PredictionRow:
    features = msgspec.json.encode([row[6] for _ in FORMULA]).decode()
    seq, pat_id, admission, at = row[1:5]
    place = (pat_id, admission, at)
    return PredictionRow(stream, seq, "formula", "1", *place, features, 0.123456789, None, now)


def _executemany_both(bench: Bench, calls: list[list[tuple[Any, ...]]], now: str) -> float:
    url = bench.server.fresh("bare")
    connection = open_database(url)
    cursor = connection.cursor()
    into_readings = INSERT.format(marks=", ".join([mark(url)] * 7))
    into_predictions = f"INSERT INTO predictions VALUES ({', '.join([mark(url)] * 13)})"
    both = [(rows, [astuple(_prediction("bare", row, now)) for row in rows]) for rows in calls]

    def insert() -> None:
        for rows, predictions in both:
            cursor.executemany(into_readings, rows)
            cursor.executemany(into_predictions, predictions)
            connection.commit()

    speed = len(calls) * BATCH / seconds(insert)
    connection.close()
    bench.server.drop("bare")
    return speed


def _model(pipeline: Pipeline) -> Iterator[Result]:
    client = ModelClient(pipeline.environ["MODEL_URL"], timeout=10)
    estimator = joblib.load(ROOT / "models/formula/1/model.joblib")
    model = Model("formula", "1", [feature.declaration() for feature in FORMULA])
    for count in (1, BATCH):
        array = np.array([(60.0, 120.0, 18.0 + n % 7, 0.4) for n in range(count)])

        def ask(array: Any = array) -> int:
            client.predict(model, array.tolist())
            return len(array)

        def bare(array: Any = array) -> int:
            estimator.predict_proba(array)
            return len(array)

        rate(ask, 0.3)
        yield Result(
            f"model {count}",
            f"model API, {count:,} row{'s' * (count > 1)} a call, through gunicorn",
            rate(ask),
            "rows/s",
            rate(bare),
            "predict_proba on an array",
        )
