"""Runs a schedule of faults, and measures how soon the pipeline recovers."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chaos.faults import Fault

log = logging.getLogger("chaos")

GIVE_UP = 120.0  # seconds after which a recovery counts as failed
# Partitions with stored messages for which a model's alarms are not computed yet.
WITHOUT_ALARMS = (
    "SELECT p.part FROM models m CROSS JOIN positions p LEFT JOIN alarm_positions a"
    " ON a.stream = p.stream AND a.part = p.part AND a.model = m.model AND a.version = m.version"
    " WHERE m.alarm IS NOT NULL AND COALESCE(a.seq, 0) < p.seq"
)


class Observed(Protocol):
    """A stack that can be observed during faults."""

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Returns rows of the database. May raise any exception if the database does not answer."""

    def redis_command(self, *command: str) -> str: ...


@dataclass(frozen=True)
class Recovery:
    """The seconds from the end of a fault to the recovery.

    stored: until every partition has stored the messages of the second after the fault, because
    earlier messages may have been in progress during the fault. predicted: until no prediction for
    these or earlier messages is pending.
    """

    fault: Fault
    stored: float
    predicted: float

    @property
    def in_time(self) -> bool:
        return max(self.stored, self.predicted) <= self.fault.bound


def positions(stack: Observed) -> dict[int, int]:
    return dict(stack.query("SELECT part, seq FROM positions"))


def waiting(stack: Observed, up_to: int) -> int:
    return int(stack.query(f"SELECT COUNT(*) FROM pending WHERE seq <= {up_to}")[0][0])


def finished(stack: Observed) -> bool:
    """Whether the whole stream is stored and included in `vitals`, no prediction is pending, and
    all alarms are computed.
    """
    position = json.loads(stack.redis_command("GET", "icu:position"))
    stored = positions(stack)
    return (
        position["ended"]
        and all(stored[int(part)] >= last for part, last in position["parts"].items())
        and waiting(stack, position["seq"]) == 0
        and not stack.query("SELECT part FROM positions WHERE vitals_seq < seq")
        and not stack.query(WITHOUT_ALARMS)
    )


def recover(stack: Observed, goal: int, ended: float, fault: Fault) -> Recovery:
    """Waits until every partition has stored message `goal` or a later message, and no prediction
    for a message up to `goal` is pending. Or waits until the whole stream is stored, if it ended
    before the goal. After GIVE_UP seconds, the times are infinite."""
    stored = _seconds(ended, lambda: min(positions(stack).values()) >= goal or finished(stack))
    predicted = _seconds(ended, lambda: waiting(stack, goal) == 0)
    return Recovery(fault, stored, predicted)


def _seconds(since: float, reached: Callable[[], bool]) -> float:
    while True:
        passed = time.monotonic() - since
        try:
            if reached():
                return passed
        except Exception as error:
            log.debug("%s", error)  # the database may be down
        if passed > GIVE_UP:
            return float("inf")
        time.sleep(0.1)


def run(
    stack: Observed,
    rate: float,
    planned: Sequence[tuple[float, Fault]],
    report: Callable[[str], None] = print,
) -> list[Recovery]:
    """Injects the faults one after the other. After each fault, waits until the pipeline has
    recovered, at most GIVE_UP seconds."""
    recoveries = []
    report(f"{'fault':44} {'stored':>8} {'predicted':>10}   seconds after the fault's end")
    for gap, fault in planned:
        time.sleep(gap)
        before = positions(stack)
        with fault.apply():
            time.sleep(fault.seconds)
        ended = time.monotonic()
        goal = int(max(_positions_or(stack, before).values()) + rate)
        recovery = recover(stack, goal, ended, fault)
        recoveries.append(recovery)
        report(
            f"{fault.name:44} {recovery.stored:8.1f} {recovery.predicted:10.1f}"
            f"{'' if recovery.in_time else '   TOO LATE'}"
        )
    return recoveries


def _positions_or(stack: Observed, before: dict[int, int]) -> dict[int, int]:
    try:
        return positions(stack)
    except Exception:
        return before
