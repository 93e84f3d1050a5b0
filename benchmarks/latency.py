"""Measures the latency from the time when a message is due until it is stored with its prediction.

The load is open: hospital sends by a fixed schedule, whatever the pipeline does, and a message's
latency is measured from the time at which it is due. So messages that wait behind a slow one count
too (no coordinated omission). The quantiles are those of all messages, not of a sample.
`predicted_later` counts the predictions that were stored after their message.
"""

import re
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from benchmarks import oracle
from benchmarks.bench import INSERT, Bench, Result, readings, seconds
from benchmarks.databases import CannotMeasure, mark, open_database
from benchmarks.end_to_end import SHIPPED
from benchmarks.pipeline import Pipeline
from benchmarks.ward import Ward
from hospital.replay import Replay
from wire.batches import partition_of
from wire.keys import COMMITTED

PARTITIONS = 2
LONGEST_WAIT = 0.05  # seconds
# Hospital logs this when its schedule starts.
CONNECTED = re.compile(r"^(\S+ \S+) .* connected: \S+ from message 1 ", re.MULTILINE)
# For each rate in messages per second, the duration of the run in seconds.
PACES = {1: 30, 100: 20, 1_000: 20, 10_000: 15}


def run(bench: Bench) -> Iterator[Result]:
    limit = _one_row(bench)
    for shipped in (False, True):
        for pace, length in ({1: 5, 1_000: 5} if bench.quick else PACES).items():
            yield from _at(bench, pace, length, shipped, limit)
    bench.server.drop("latency")


def _at(
    bench: Bench, pace: int, length: int, shipped: bool, limit: dict[str, float]
) -> Iterator[Result]:
    ward = bench.ward(min(2_000, pace * length), pace * length, 1.0)
    url = bench.server.fresh("latency")
    settings = {"REPLAY_RATE": str(pace), "PARTITIONS": str(PARTITIONS)}
    settings |= {"MODELS": str(SHIPPED)} if shipped else {}
    with bench.pipeline(ward.folder, url, None, **settings) as pipeline:
        pipeline.ready("redis", "modelapi", "tool", "hospital")
        with Commits(pipeline) as commits:
            usage = pipeline.run(60 + length * 4)
        pipeline.wait_for_model()
        later = pipeline.tool_metric("icu_tool_predictions_total", "when")["later"]
        waits = commits.stored(_partitions(ward)) - _due(pipeline, pace)
    correct = oracle.check(ward, url, pipeline.stream, PARTITIONS)
    details = usage.details() | {"correct": correct, "max": float(waits.max()) * 1e3}
    details |= {"predicted_later": later}
    kind = "models as shipped" if shipped else "formula"
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield Result(
            f"latency {pace}{' shipped' * shipped} {name}",
            f"latency at {pace:,} messages/s, {kind}, {name}",
            float(np.quantile(waits, share)) * 1e3,
            "ms",
            limit[name],
            f"insert and commit of one row, {name}",
            details if name == "p50" else {},
        )


class Commits:
    """Records in its own thread when each partition's position moves.

    Redis reports each move. A thread that reads the positions every millisecond would take a fifth
    of a core from the pipeline.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._events = pipeline.redis.pubsub(ignore_subscribe_messages=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._moves: list[list[tuple[int, float]]] = [[] for _ in range(PARTITIONS)]

    def __enter__(self) -> "Commits":
        self._pipeline.redis.config_set("notify-keyspace-events", "Kh")
        self._events.subscribe(f"__keyspace@0__:{COMMITTED}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._events.close()

    def _watch(self) -> None:
        while not self._over.is_set():
            if self._events.get_message(timeout=LONGEST_WAIT):
                self._look()
        self._look()

    def _look(self) -> None:
        fields = [f"{self._pipeline.stream}/{part}" for part in range(PARTITIONS)]
        try:
            found = self._pipeline.redis.hmget(COMMITTED, fields)
        except RedisError:
            return
        now = time.time()
        for moves, position in zip(self._moves, found, strict=True):
            if position is not None and (not moves or moves[-1][0] < int(position)):
                moves.append((int(position), now))

    def stored(self, partitions: NDArray[np.int64]) -> NDArray[np.float64]:
        """The time at which each message was stored, in seconds since 1970. partitions: the
        partition of each message, in order."""
        times = np.empty(len(partitions))
        for part, moves in enumerate(self._moves):
            (seqs,) = np.nonzero(partitions == part)
            positions, at = np.array(moves).reshape(-1, 2).T
            times[seqs] = at[np.searchsorted(positions, seqs + 1)]
        return times


def _partitions(ward: Ward) -> NDArray[np.int64]:
    """The partition of each message of the stream."""
    with Replay(ward.folder, "hindsight") as replay:
        parts = [
            partition_of(event.encode().partition(b"\ndata: ")[2][:-2], PARTITIONS)
            for some in replay.events(0)
            for event in some
        ]
    return np.array(parts)


def _due(pipeline: Pipeline, pace: int) -> NDArray[np.float64]:
    """The time at which each message is due by hospital's schedule, in seconds since 1970."""
    starts = CONNECTED.findall(pipeline.log("hospital"))
    if len(starts) != 1:
        raise CannotMeasure(f"hospital's schedule started {len(starts)} times")
    start = datetime.strptime(starts[0], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
    due: NDArray[np.float64] = start + np.arange(pipeline.messages) / pace
    return due


def _one_row(bench: Bench) -> dict[str, float]:
    """p50 and p99 of the milliseconds that the machine takes to store one row."""
    url = bench.server.fresh("bare")
    connection = open_database(url)
    cursor = connection.cursor()
    statement = INSERT.format(marks=", ".join([mark(url)] * 7))

    def insert(row: tuple[object, ...]) -> None:
        cursor.execute(statement, row)
        connection.commit()

    times = [
        seconds(lambda row=row: insert(row)) * 1e3  # type: ignore[misc]
        for row in readings(1, 200 if bench.quick else 1_000)
    ]
    connection.close()
    bench.server.drop("bare")
    return {"p50": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}
