"""Measures the latency from the buffer's receipt of a message to its commit, at a steady rate."""

import statistics
from collections.abc import Iterator

from benchmarks import oracle
from benchmarks.bench import INSERT, Bench, Result, readings, seconds
from benchmarks.databases import mark, open_database


def run(bench: Bench) -> Iterator[Result]:
    limit = _one_row(bench)
    paces = {1: 5, 1_000: 5} if bench.quick else {1: 60, 100: 30, 1_000: 30, 10_000: 30}
    for pace, length in paces.items():
        ward = bench.ward(min(2_000, pace * length), pace * length, 0.3)
        url = bench.server.fresh("latency")
        with bench.pipeline(ward.folder, url, REPLAY_RATE=str(pace)) as pipeline:
            pipeline.ready("redis", "modelapi", "tool", "hospital")
            usage = pipeline.run(60 + length * 2)
            pipeline.wait_for_model()
            latency = pipeline.latency(pipeline.stream)
        correct = oracle.check(ward, url, pipeline.stream, 2)
        for name in ("p50", "p99", "max"):
            yield Result(
                f"latency {pace} {name}",
                f"latency at {pace:,} messages/s, {name}",
                latency[name],
                "ms",
                limit[name],
                f"insert and commit of one row, {name}",
                (usage.details() | {"correct": correct}) if name == "p50" else {},
            )
    bench.server.drop("latency")


def _one_row(bench: Bench) -> dict[str, float]:
    """Measures the milliseconds that the machine takes to store one row."""
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
    return {
        "p50": statistics.median(times),
        "p99": statistics.quantiles(times, n=100)[98],
        "max": max(times),
    }
