"""Runs a schedule, and measures how soon the pipeline is itself again."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chaos.faults import Fault

log = logging.getLogger("chaos")

BOUND = 15.0
GIVE_UP = 90.0


class Watched(Protocol):
    """What is asked of a stack while faults go on."""

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows from its database. Any exception when that does not answer."""

    def redis_command(self, *command: str) -> str: ...


@dataclass(frozen=True)
class Recovery:
    """Seconds from a fault's end until all is well again.

    stored: every partition has what the stream brought in the second after the fault, so that
    what was under way when it struck does not count. predicted: none of the predictions up to
    there waits for the model.
    """

    fault: str
    stored: float
    predicted: float

    @property
    def in_time(self) -> bool:
        return max(self.stored, self.predicted) <= BOUND


def positions(stack: Watched) -> dict[int, int]:
    return dict(stack.query("SELECT part, seq FROM positions"))


def waiting(stack: Watched, up_to: int) -> int:
    return int(stack.query(f"SELECT COUNT(*) FROM pending WHERE seq <= {up_to}")[0][0])


def finished(stack: Watched) -> bool:
    """The stream is at its end, all of it is stored and in the vitals, no prediction waits."""
    position = json.loads(stack.redis_command("GET", "icu:position"))
    stored = positions(stack)
    return (
        position["ended"]
        and all(stored[int(part)] >= last for part, last in position["parts"].items())
        and waiting(stack, position["seq"]) == 0
        and not stack.query("SELECT part FROM positions WHERE vitals_seq < seq")
    )


def recover(stack: Watched, goal: int, ended: float, name: str) -> Recovery:
    """Waits until every partition has stored message `goal`, and its predictions are made."""
    stored = _seconds(ended, lambda: min(positions(stack).values()) >= goal)
    predicted = _seconds(ended, lambda: waiting(stack, goal) == 0)
    return Recovery(name, stored, predicted)


def _seconds(since: float, reached: Callable[[], bool]) -> float:
    while True:
        passed = time.monotonic() - since
        try:
            if reached():
                return passed
        except Exception as error:
            log.debug("%s", error)  # the database may be what is down
        if passed > GIVE_UP:
            return float("inf")
        time.sleep(0.1)


def run(
    stack: Watched,
    rate: float,
    planned: Sequence[tuple[float, Fault]],
    told: Callable[[str], None] = print,
) -> list[Recovery]:
    """One fault after the other, each when the pipeline has got over the one before."""
    recoveries = []
    told(f"{'fault':44} {'stored':>8} {'predicted':>10}   seconds after its end")
    for gap, fault in planned:
        time.sleep(gap)
        before = positions(stack)
        with fault.apply():
            time.sleep(fault.seconds)
        ended = time.monotonic()
        goal = int(max(_positions_or(stack, before).values()) + rate)
        recovery = recover(stack, goal, ended, fault.name)
        recoveries.append(recovery)
        told(
            f"{fault.name:44} {recovery.stored:8.1f} {recovery.predicted:10.1f}"
            f"{'' if recovery.in_time else '   TOO LATE'}"
        )
    return recoveries


def _positions_or(stack: Watched, before: dict[int, int]) -> dict[int, int]:
    try:
        return positions(stack)
    except Exception:
        return before
