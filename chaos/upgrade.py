"""`python -m chaos --stack upgrade --old FOLDER`: a rolling upgrade from an older checkout.

Two tools, buffer and modelapi of the older version store a stream. Each is replaced, one after the
other, by this checkout's, first in one order, then on a new stack in the opposite order. After each
replacement, both partitions must store new messages. In the end all rows equal those of pandas.
"""

import time
from collections.abc import Callable
from pathlib import Path

from chaos.embedded import EmbeddedStack
from chaos.run import finished, positions
from tests.support import alarm_oracle
from tests.support.oracle import check

ORDERS = (("tool", "tool-2", "modelapi", "buffer"), ("buffer", "modelapi", "tool-2", "tool"))
# A tool that is killed keeps its leases for 10 s, and a new tool needs some seconds to start.
BOUND = 60.0
# Both versions run side by side for this time after each replacement.
SIDE_BY_SIDE = 8.0


class MixedStack(EmbeddedStack):
    """Programs of two checkouts on one Redis and one database."""

    def __init__(self, folder: Path, patient_data: Path, old: Path, rate: float) -> None:
        super().__init__(folder, patient_data, rate)
        self.roots = dict.fromkeys(ORDERS[0], old.resolve())

    def replace(self, name: str) -> None:
        """Stops a program of the older version, and starts this version's."""
        with self._hold:
            self.stop(name)
            del self.roots[name]
            self.start(name)


def run(
    folder: Path, patient_data: Path, old: Path, rate: float, report: Callable[[str], None]
) -> bool:
    """Whether both partitions went on in time after each replacement. Raises AssertionError for
    wrong rows."""
    in_time = True
    for order in ORDERS:
        (folder / order[0]).mkdir()
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


def _moves(stack: MixedStack, report: Callable[[str], None], name: str) -> bool:
    """Waits until both partitions have stored a new message; whether it took at most BOUND."""
    stack.wait(lambda: len(positions(stack)) == 2)
    before = positions(stack)
    begun = time.monotonic()
    stack.wait(lambda: all(seq > before[part] for part, seq in positions(stack).items()), 300)
    seconds = time.monotonic() - begun
    report(f"{name:44} {seconds:8.1f} s{'' if seconds <= BOUND else '   TOO LATE'}")
    return seconds <= BOUND
