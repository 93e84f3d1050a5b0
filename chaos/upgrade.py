"""`python -m chaos --stack upgrade --old FOLDER`: tests a rolling upgrade from an older checkout.

Two tools, a buffer and a model API of the older version store a stream. The test replaces them one
after the other with the programs of this checkout, and repeats this in the opposite order on a
second stack. After each replacement, both partitions must store new messages. In the end, all rows
must equal those that pandas computes.
"""

import time
from collections.abc import Callable
from pathlib import Path

from chaos.embedded import EmbeddedStack
from chaos.run import finished, positions
from embedded.programs import ROOT
from modelapi.states import StateFile
from tests.support import alarm_oracle
from tests.support.oracle import check

ORDERS = (("tool", "tool-2", "modelapi", "buffer"), ("buffer", "modelapi", "tool-2", "tool"))
# A tool that is killed keeps its leases for 10 s, and a new tool needs some seconds to start.
BOUND = 60.0
# Seconds for which both versions run after each replacement.
SIDE_BY_SIDE = 8.0


class MixedStack(EmbeddedStack):
    """Programs of two checkouts that share one Redis and one database."""

    def __init__(self, folder: Path, patient_data: Path, old: Path, rate: float) -> None:
        super().__init__(folder, patient_data, rate)
        self.roots = dict.fromkeys(ORDERS[0], old.resolve())

    def replace(self, name: str) -> None:
        """Replaces a program of the older version with that of this version."""
        with self._hold:
            self.stop(name)
            del self.roots[name]
            self.start(name)


def run(
    folder: Path, patient_data: Path, old: Path, rate: float, report: Callable[[str], None]
) -> bool:
    """Returns whether both partitions stored messages in time after each replacement. Raises
    AssertionError for wrong rows.
    """
    in_time = True
    for order in ORDERS:
        (folder / order[0]).mkdir()
        _pin_models(folder / order[0])
        with MixedStack(folder / order[0], patient_data, old, rate) as stack:
            stack.start("tool-2")
            in_time &= _moves(stack, report, "older version alone")
            for name in order:
                stack.replace(name)
                in_time &= _moves(stack, report, f"{name} replaced")
                time.sleep(SIDE_BY_SIDE)
            stack.hurry()
            stack.wait(lambda: finished(stack), 600)
            report(check(patient_data, stack.database_url, "live"))
            report(alarm_oracle.check(stack.database_url))
    return in_time


def _pin_models(folder: Path) -> None:
    """Makes both versions use the models that are this version's default."""
    states = StateFile(folder / "models.sqlite", ROOT / "models" / "default.json")
    states.change("promote", str(states.read()[1].champion), "chaos", lambda state: state)


def _moves(stack: MixedStack, report: Callable[[str], None], name: str) -> bool:
    """Waits until both partitions have stored a new message; returns whether this took at most
    BOUND.
    """
    stack.wait(lambda: len(positions(stack)) == 2)
    before = positions(stack)
    begun = time.monotonic()
    stack.wait(lambda: all(seq > before[part] for part, seq in positions(stack).items()), 300)
    seconds = time.monotonic() - begun
    report(f"{name:44} {seconds:8.1f} s{'' if seconds <= BOUND else '   TOO LATE'}")
    return seconds <= BOUND
