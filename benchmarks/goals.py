"""The goals of the benchmarks."""

import operator
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Result


@dataclass(frozen=True)
class Goal:
    """A goal for a figure; `value` extracts the figure from the results. bound: a minimum, or a
    maximum if the goal has a unit. aim: the value to work towards."""

    what: str
    value: Callable[[dict[str, Result]], float | None]
    bound: float
    aim: float
    unit: str = ""

    def met(self, value: float) -> bool:
        # Goals with a unit are times and sizes, for which less is better.
        better = operator.le if self.unit else operator.ge
        return bool(better(value, self.bound))


def _ratio(key: str) -> Callable[[dict[str, Result]], float | None]:
    return lambda found: found[key].ratio if key in found else None


def _figure(key: str) -> Callable[[dict[str, Result]], float | None]:
    return lambda found: found[key].figure if key in found else None


def _against(key: str, other: str) -> Callable[[dict[str, Result]], float | None]:
    """The ratio of two figures. Each is divided by its raw limit first, because the machine's speed
    may change between the two."""

    def compare(found: dict[str, Result]) -> float | None:
        ratio, to = (found[name].ratio if name in found else None for name in (key, other))
        return ratio / to if ratio and to else None

    return compare


def e2e(predicted: int, workers: int, stored: int = 0) -> str:
    return f"e2e server {predicted}% {workers}w 2000p {stored}h"


GOALS = (
    Goal(
        "100 % predicted, 2 workers, models as shipped, against X",
        _ratio(f"{e2e(100, 2)} shipped"),
        *(0.35, 0.5),
    ),
    Goal("30 % predicted, 1 worker, against X", _ratio(e2e(30, 1)), 0.6, 0.8),
    Goal("30 % predicted, 2 workers, against X", _ratio(e2e(30, 2)), 0.95, 1.1),
    Goal("100 % predicted, 2 workers, against X", _ratio(e2e(100, 2)), 0.65, 0.8),
    Goal(
        "100 % predicted, 2 workers, after 10,000,000 readings, against empty tables",
        _against(e2e(100, 2, 10_000_000), e2e(100, 2)),
        *(0.97, 1.0),
    ),
    Goal(
        "100 % predicted, 2 workers, against the naive baseline at 1,000 rows per patient",
        _against(e2e(100, 2), "naive 1000"),
        *(100, 500),
    ),
    Goal(
        "100 % predicted, 2 workers, against 1 worker", _against(e2e(100, 2), e2e(100, 1)), 1.5, 1.8
    ),
    Goal(
        "SQLite, 100 % predicted, models as shipped, against a bare executemany into SQLite",
        _ratio("e2e sqlite 100% 2w 2000p 0h shipped"),
        *(0.15, 0.25),
    ),
    Goal(
        "latency p50 at 1,000 messages/s, models as shipped",
        _figure("latency 1000 shipped p50"),
        *(10, 5, "ms"),
    ),
    Goal(
        "latency p99 at 1,000 messages/s, models as shipped",
        _figure("latency 1000 shipped p99"),
        *(30, 15, "ms"),
    ),
    Goal("latency p99 at 10,000 messages/s", _figure("latency 10000 p99"), 80, 40, "ms"),
    Goal("RQ jobs that do nothing, against bare commands", _ratio("rq"), 0.15, 0.25),
    Goal("model API, 1,000 rows, against predict_proba", _ratio("model 1000"), 0.5, 0.7),
    Goal("model API, 1 row, against the CPU of a bare Flask route", _ratio("model cpu"), 0.7, 0.86),
    Goal(
        "stored features per prediction of the champion", _figure("feature bytes"), 0.8, 0.5, "kB"
    ),
    Goal("replay with the ward page open, against without", _ratio("page read"), 0.95, 1.0),
    Goal("hospital alone, messages/s", _figure("hospital"), 300_000, 1_000_000),
    Goal("memory of hospital", _figure("memory hospital"), 150, 100, "MB"),
    Goal("memory of buffer", _figure("memory buffer"), 150, 100, "MB"),
    Goal("memory of a worker", _figure("memory tool"), 150, 100, "MB"),
    Goal(
        "gateway, ORU of 10 OBX over 50 connections, messages/s", _figure("gateway"), 2_000, 4_000
    ),
    Goal("gateway, answer to one sender, p99", _figure("gateway ack p99"), 10, 5, "ms"),
    Goal("sender → stored prediction, p99", _figure("gateway to prediction p99"), 100, 50, "ms"),
    Goal("memory of gateway", _figure("gateway memory"), 150, 100, "MB"),
    Goal("merge of 10,000,000 rows, time", _figure("merge 10000000 time"), 60, 15, "s"),
    Goal("merge of 10,000,000 rows, memory", _figure("merge 10000000 memory"), 2_000, 1_000, "MB"),
)
