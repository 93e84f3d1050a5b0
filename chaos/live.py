"""`python -m chaos --stack live`: injects faults while HL7 goes through gateway, buffer and tool.

One sender repeats each message until it is acknowledged. In the end, the gateway's log must equal
the log of a gateway without faults. The stored readings must equal those that pandas computes from
the corrected history.
"""

import asyncio
import os
import random
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from embedded.programs import Programs
from embedded.stack import environment, free_ports
from gateway.mllp import wrap
from tests.support.gateway import gateway, send_all
from tests.support.gateway_kills import deliver, tables
from tests.support.hl7_history import ZONE, History

NAMES = ("redis", "modelapi", "gateway", "buffer", "tool")
HELD = 4.0  # seconds that a fault lasts
END_SECONDS = 240.0  # maximum seconds until the last messages are stored
READINGS = "SELECT pat_id, parameter, CAST(measured_at AS CHAR(19)), value FROM readings"


class LiveStack(Programs):
    """The pipeline behind a gateway. It restarts programs that die."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports("gateway")
        inherited = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        settings = {"TIME_ZONE": ZONE, "ICU_UNITS": "ICU", "FUTURE_HOURS": "0"}
        environ = environment(folder, inherited | ports | settings, source="gateway")
        super().__init__(folder, environ)
        self.mllp = int(ports["MLLP_PORT"])
        self.log_file = Path(environ["GATEWAY_LOG"])
        self.database = environ["DATABASE_URL"].removeprefix("sqlite:///")
        self._over = threading.Event()

    def __enter__(self) -> "LiveStack":
        self.start(*NAMES)
        threading.Thread(target=self._supervise, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        time.sleep(0.3)
        for name in NAMES:
            self.send(name, signal.SIGCONT)
        super().__exit__(*error)

    def _supervise(self) -> None:
        while not self._over.wait(0.1):
            for name in self.ended():
                self.start(name)

    def faults(self) -> dict[str, Callable[[], None]]:
        kills = {f"{name}: kill -9": self._kill(name) for name in NAMES if name != "modelapi"}
        return kills | {
            "gateway: stopped": self._stop_for_a_while,
            "gateway: disk full": self._fill_disk,
            "gateway: a sender that reads no answer": self._slow_sender,
            "gateway: a subscriber that reads nothing": self._slow_subscriber,
        }

    def _kill(self, name: str) -> Callable[[], None]:
        return lambda: self.send(name, signal.SIGKILL)

    def _stop_for_a_while(self) -> None:
        self.send("gateway", signal.SIGSTOP)
        time.sleep(HELD)
        self.send("gateway", signal.SIGCONT)

    def _fill_disk(self) -> None:
        """Makes each write of the gateway fail, as on a full disk."""
        with suppress(ProcessLookupError, IndexError):
            pid = self.pids("gateway")[0]
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
            time.sleep(HELD)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))

    def _slow_sender(self) -> None:
        with suppress(OSError), _connected(self.mllp) as sender:
            # These frames are rejected, so they leave nothing in the log.
            for _ in range(20_000):
                sender.sendall(wrap(b"nonsense" * 10))

    def _slow_subscriber(self) -> None:
        with suppress(OSError), _connected(int(self.environ["GATEWAY_PORT"])) as subscriber:
            subscriber.sendall(b"GET /sub HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(HELD)


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), HELD) as connection:
        yield connection


def run(folder: Path, seed: int, steps: int, most: int, say: Callable[[str], None]) -> bool:
    """Injects up to `most` faults in a random order; returns whether log and tables are equal."""
    history = History(seed)
    history.play(steps)
    sent: list[bytes] = []
    (folder / "stack").mkdir()
    with LiveStack(folder / "stack") as stack:

        def deliver_all() -> None:
            for message in history.messages:
                deliver(stack.mllp, message)
                sent.append(message)

        sender = threading.Thread(target=deliver_all, daemon=True)
        sender.start()
        rng = random.Random(seed)
        planned = list(stack.faults().items())
        rng.shuffle(planned)
        _goes_on(sent, sender)
        for name, inject in planned[:most]:
            inject()
            say(f"{name}: messages are acknowledged again after {_goes_on(sent, sender):.1f} s")
            time.sleep(rng.uniform(0.5, 2.0))
        if not sender.is_alive():
            say("all messages were sent before the last fault was over")
        sender.join()
        return _equal(folder, history, stack)


def _goes_on(sent: list[bytes], sender: threading.Thread) -> float:
    """Returns the seconds until five more messages are acknowledged, or until all are sent."""
    began, before = time.monotonic(), len(sent)
    while len(sent) < before + 5 and sender.is_alive():
        time.sleep(0.01)
    return time.monotonic() - began


def _equal(folder: Path, history: History, stack: LiveStack) -> bool:
    async def clean() -> None:
        async with gateway(folder / "clean.sqlite") as running:
            for begin in range(0, len(history.messages), 100):
                await send_all(running.mllp, history.messages[begin : begin + 100])

    asyncio.run(clean())
    expected = history.frame()
    with closing(sqlite3.connect(stack.log_file)) as log:
        numbers = dict(log.execute("SELECT id, pat_id FROM patients").fetchall())
    times = expected["measured_at"].dt.strftime("%Y-%m-%d %H:%M:%S")
    patients = expected["patient"].map(numbers)
    rows = sorted(zip(patients, expected["parameter"], times, expected["value"], strict=True))
    deadline = time.monotonic() + END_SECONDS
    while _stored(stack.database) != rows and time.monotonic() < deadline:
        time.sleep(0.5)
    logs = tables(folder / "clean.sqlite") == tables(stack.log_file)
    return logs and _stored(stack.database) == rows


def _stored(path: str) -> list[tuple[object, ...]]:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return sorted(database.execute(READINGS).fetchall())
    except sqlite3.OperationalError:  # the table does not exist yet
        return []
