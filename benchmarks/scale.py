"""Measures one, two and four tools at four partitions."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

from benchmarks import oracle
from benchmarks.bench import Bench, Result
from benchmarks.end_to_end import PATIENTS, rows
from benchmarks.pipeline import Pipeline
from wire import keys

PARTITIONS = 4


def run(bench: Bench) -> Iterator[Result]:
    """Measures each number of tools on the same input. The formula predicts for every reading."""
    ward = bench.ward(PATIENTS, rows(bench), 1.0)
    first: float | None = None  # in X
    for tools in (1, 2, 4):
        before = bench.x(bench.server)
        url = bench.server.fresh("scale")
        with bench.pipeline(ward.folder, url, PARTITIONS=str(PARTITIONS)) as pipeline:
            pipeline.ready("redis", "modelapi", "tool", "hospital")
            pipeline.start(*(f"tool-{number}" for number in range(2, tools + 1)))
            shared = partial(_shared, pipeline, tools)
            pipeline.wait(shared, "the tools did not share the partitions")
            usage = pipeline.run(60 + ward.rows / 1_000)
            pipeline.wait_for_model()
        x = (before + bench.x(bench.server)) / 2
        correct = oracle.check(ward, url, pipeline.stream, PARTITIONS)
        bench.server.drop("scale")
        figure = usage.messages / usage.seconds
        first = first or figure / x
        cpu = {name: seconds / usage.messages * 1e6 for name, seconds in usage.cpu.items()}
        of_tools = sum(us for name, us in cpu.items() if name.startswith("tool"))
        yield Result(
            f"scale {tools}",
            f"{tools} tool{'s' * (tools > 1)} at {PARTITIONS} partitions, "
            f"{of_tools:.0f} µs of CPU per message in the tools, {sum(cpu.values()):.0f} in all",
            figure,
            "messages/s",
            first * x,
            "one tool, at the machine's speed in this run",
            usage.details() | {"correct": correct},
        )


def _shared(pipeline: Pipeline, tools: int) -> bool:
    """Whether each tool has as many partitions as the others, and each partition has a worker."""
    leases = pipeline.redis.mget(map(keys.lease_key, range(PARTITIONS)))
    workers = [
        pipeline.redis.scard(f"rq:workers:{keys.queue_name(part)}") for part in range(PARTITIONS)
    ]
    return set(Counter(leases).values()) == {PARTITIONS // tools} and all(workers)
