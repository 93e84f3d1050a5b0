"""Runs a gateway in this process or in another one, sends messages, and reads the gateway's log."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import ClientSession, web

from embedded.stack import free_port
from gateway.app import MLLP_PORT, create_app
from gateway.log import LogReader
from gateway.mllp import FrameReader, wrap
from gateway.settings import Settings
from wire.settings import read

ROOT = Path(__file__).parents[2]
HEADER = "MSH|^~\\&|MON|WARD|||20261127120000||{kind}|{control}|P|2.5"


def hl7(kind: str, *segments: str, control: str = "1") -> bytes:
    """Returns an HL7 message: a header and these segments."""
    return "".join(
        f"{s}\r" for s in (HEADER.format(kind=kind, control=control), *segments)
    ).encode()


def oru(*segments: str, control: str = "1", patient: str = "P1", bed: str = "ICU^1^1") -> bytes:
    """An ORU message about one patient, with these segments after PID and PV1."""
    return hl7("ORU^R01", f"PID|||{patient}^^^H^MR", f"PV1||I|{bed}", *segments, control=control)


class Running(NamedTuple):
    """A gateway in this process: the port for HL7, the URL, the log, and an HTTP client."""

    mllp: int
    url: str
    log: Path
    http: ClientSession


@asynccontextmanager
async def gateway(log: Path, **environ: str) -> AsyncIterator[Running]:
    """Runs a gateway until the block ends."""
    settings = read(
        Settings,
        {
            "GATEWAY_LOG": str(log),
            "MLLP_PORT": "0",
            "TIME_ZONE": "Europe/Berlin",
            "ICU_UNITS": "ICU",
            "FUTURE_HOURS": "0",
            **environ,
        },
    )
    app = create_app(settings)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ClientSession() as http:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield Running(app[MLLP_PORT], url, log, http)
    finally:
        await runner.cleanup()


async def send(port: int, pieces: Iterable[bytes], answers: int) -> list[bytes]:
    """Writes the pieces one after the other; returns `answers` answers, or fewer if the gateway
    closes the connection.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    frames = FrameReader(1 << 20)
    found: list[bytes] = []
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    while len(found) < answers:
        chunk = await asyncio.wait_for(reader.read(65536), 20)
        if not chunk:
            break
        found += [frame.content for frame in frames.feed(chunk)]
    writer.close()
    return found


async def send_all(port: int, messages: Iterable[bytes]) -> list[str]:
    """Sends messages one after the other; returns the acknowledgement code (MSA-1) of
    each answer.
    """
    frames = [wrap(message) for message in messages]
    return [code(answer) for answer in await send(port, frames, len(frames))]


def code(answer: bytes) -> str:
    """The acknowledgement code (MSA-1) of an answer."""
    return next(line for line in answer.decode().split("\r") if line.startswith("MSA"))[4:6]


def events(log: Path) -> list[dict[str, Any]]:
    """The events in a log, in order."""
    with closing(LogReader(log)) as reader:
        found = reader.events(0, sys.maxsize)
    assert [seq for seq, _ in found] == list(range(1, len(found) + 1))
    return [json.loads(data) for _, data in found]


async def all_moved(log: Path) -> None:
    """Waits until all readings have been moved after merges and cancelled admissions."""
    deadline = time.monotonic() + 60
    with closing(sqlite3.connect(log)) as connection:
        while connection.execute("SELECT 1 FROM pending").fetchone():
            assert time.monotonic() < deadline, "readings still have to be moved"
            await asyncio.sleep(0.01)


# This program imports the gateway once, starts it again after each SIGKILL, and prints its process
# ids.
SUPERVISOR = """
import os, sys
from gateway.__main__ import main
while True:
    child = os.fork()
    if not child:
        sys.exit(main())
    print(child, flush=True)
    if os.waitpid(child, 0)[1] != 9:
        break
"""


class Program:
    """`python -m gateway` in a process of its own. After `kill`, it starts again."""

    def __init__(self, log: Path, **environ: str) -> None:
        self.log = log
        self.mllp, self.port = free_port(), free_port()
        self._supervisor = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR],
            cwd=ROOT,
            env={
                **os.environ,
                "GATEWAY_LOG": str(log),
                "MLLP_PORT": str(self.mllp),
                "GATEWAY_PORT": str(self.port),
                "TIME_ZONE": "Europe/Berlin",
                "FUTURE_HOURS": "0",
                "LOG_LEVEL": "WARNING",
                **environ,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started()

    def _started(self) -> None:
        assert self._supervisor.stdout is not None
        self.pid = int(self._supervisor.stdout.readline())
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._supervisor.poll() is None, "the gateway did not start"
            time.sleep(0.005)
        raise AssertionError("the gateway did not start")

    def kill(self) -> None:
        """Kills the gateway with SIGKILL; returns when the new one listens."""
        os.kill(self.pid, signal.SIGKILL)
        self._started()

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGTERM)
        self._supervisor.wait(20)
        assert self._supervisor.stdout is not None
        self._supervisor.stdout.close()
