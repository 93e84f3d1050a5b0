"""`python -m chaos --seed N`: injects all faults into a running pipeline, in a seeded order.

Replays a synthetic ward at a steady rate, injects the faults one after the other, and prints the
time of each recovery. Then compares all rows of all tables with those that pandas computes from the
CSVs, and all alarms with those that follow from the predictions. On the embedded stack, chaos
restarts programs that die, as compose does. Exit status: 0 if all rows are equal and the pipeline
recovered from each fault in time.
"""

import argparse
import random
import re
import signal
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from chaos import compose, embedded, kubernetes, live, replica, upgrade
from chaos.faults import Fault, all_faults, schedule
from chaos.run import Recovery, finished, positions, run
from tests.support import alarm_oracle
from tests.support.oracle import check
from tests.support.pipeline import synthetic

# Upper bounds for the duration of each stack's schedule, in seconds.
STACKS = {
    **{"embedded": 700.0, "compose": 700.0, "kubernetes": 700.0},
    **{"replica": 150.0, "kubernetes-replica": 150.0, "upgrade": 150.0, "live": 0.0},
}
MESSAGES_A_PATIENT = 250
Starting = AbstractContextManager[Any]


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.stack == "upgrade" and not arguments.old:
        parser.error("--stack upgrade needs --old")
    if arguments.old and arguments.stack not in ("upgrade", "kubernetes"):
        parser.error("--old is for the stacks upgrade and kubernetes")
    # SIGTERM raises SystemExit, so that the stack is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="icu-chaos-") as temporary:
        folder = Path(temporary)
        if arguments.stack == "live":
            equal = live.run(folder, arguments.seed, 4_000, 99, print)
            print("log and readings are as expected" if equal else "log or readings are wrong")
            return not equal
        seconds = arguments.seconds or STACKS[arguments.stack]
        patients = int(seconds * arguments.rate / MESSAGES_A_PATIENT) + 12
        ward = synthetic(
            folder / "ward", "--patients", str(patients), "--days", "20", "--seed", "1"
        )
        if arguments.stack == "upgrade":
            return not upgrade.run(folder, ward, arguments.old, arguments.rate, print)
        (folder / "stack").mkdir()
        if arguments.stack == "replica":
            return not replica.run(folder / "stack", ward, arguments.rate, print)
        with _start(arguments, folder / "stack", ward) as stack:
            planned = _plan(arguments, stack, rng)
            if not planned:
                parser.error("no fault is left: check --only and --seconds")
            return _inject(stack, arguments.rate, planned, ward)


def _start(arguments: argparse.Namespace, folder: Path, ward: Path) -> Starting:
    if arguments.stack.startswith("kubernetes"):
        replica = arguments.stack == "kubernetes-replica"
        return kubernetes.stack(ward, arguments.rate, arguments.old, replica)
    kind: Any = compose if arguments.stack == "compose" else embedded
    starting: Starting = kind.stack(folder, ward, arguments.rate)
    return starting


def _plan(
    arguments: argparse.Namespace, stack: Any, rng: random.Random
) -> list[tuple[float, Fault]]:
    if arguments.old:
        planned: list[tuple[float, Fault]] = stack.upgrade()
        return planned
    if arguments.stack == "kubernetes-replica":
        planned = stack.promotion()
        return planned
    on_cluster = arguments.stack == "kubernetes"
    known = stack.own_faults(rng) if on_cluster else all_faults(stack, rng)
    faults = [fault for fault in known if re.search(arguments.only, fault.name)]
    return schedule(faults, rng, arguments.seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the random order (default: 1)")
    parser.add_argument(
        "--stack",
        choices=STACKS,
        default="embedded",
        help="embedded, compose or kubernetes: the replay pipeline; live: the pipeline with the "
        "gateway; replica: MySQL fails, and its replica is promoted; kubernetes-replica: the same "
        "on a cluster; upgrade: a rolling upgrade instead of faults (default: %(default)s)",
    )
    parser.add_argument(
        "--old",
        type=Path,
        help="a checkout of the older version, for upgrade; with kubernetes, run a rolling upgrade "
        "instead of faults",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help="inject only as many faults as fit into this number of seconds (default: all)",
    )
    parser.add_argument(
        "--rate", type=float, default=250, help="messages per second (default: 250)"
    )
    parser.add_argument(
        "--only", default="", help="inject only faults whose name contains this regular expression"
    )
    return parser


def _inject(stack: Any, rate: float, planned: list[tuple[float, Fault]], ward: Path) -> int:
    _wait(lambda: len(positions(stack)) > 1, 120)
    began = time.monotonic()
    recoveries = run(stack, rate, planned, lambda line: print(line, flush=True))
    took = time.monotonic() - began
    stack.hurry()
    _wait(lambda: finished(stack), 300)
    print(check(ward, stack.database_url, "live"))
    print(alarm_oracle.check(stack.database_url))
    return _sum_up(recoveries, took)


def _sum_up(recoveries: list[Recovery], took: float) -> int:
    late = [
        f"{recovery.fault.name} ({recovery.fault.bound:g} s)"
        for recovery in recoveries
        if not recovery.in_time
    ]
    slowest = max(recoveries, key=lambda r: max(r.stored, r.predicted))
    print(
        f"{len(recoveries)} faults in {took:.0f} s; slowest recovery: {slowest.fault.name}, "
        f"{slowest.stored:.1f} s to store, {slowest.predicted:.1f} s to predict"
    )
    if late:
        print(f"no recovery in time: {', '.join(late)}", file=sys.stderr)
    return 1 if late else 0


def _wait(reached: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if reached():
                return
        except Exception as error:  # a service may still be starting
            last: object = error
        else:
            last = ""
        if time.monotonic() > deadline:
            sys.exit(f"chaos: the pipeline did not start or finish within {seconds:g} s {last}")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
