"""Kills a gateway repeatedly while a sender repeats each message until it is acknowledged.

    python -m tests.support.gateway_kills --rounds 1000

Compares the tables of the log, row by row, with those of a gateway that was not killed.
"""

import argparse
import random
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gateway.mllp import FrameReader, wrap
from tests.support.gateway import Program, code, oru
from tests.support.hl7_corpus import corpus, obx

TABLES = {
    "events": "*",
    "received": "id, digest, sender, kind, first, last, raw",
    "patients": "*",
    "people": "*",
    "stays": "*",
    "refs": "*",
    "pending": "*",
}


def tables(log: Path) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the log, without the times of receipt."""
    connection = sqlite3.connect(log)
    found = {
        name: connection.execute(f"SELECT {columns} FROM {name} ORDER BY 1, 2").fetchall()
        for name, columns in TABLES.items()
    }
    connection.close()
    return found


def deliver(port: int, message: bytes) -> float:
    """Sends a message until it is acknowledged; returns the start time of the last attempt."""
    while True:
        began = time.time()
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as connection:
                connection.sendall(wrap(message))
                frames: list[bytes] = []
                reader = FrameReader(1 << 20)
                while not frames:
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    frames = [frame.content for frame in reader.feed(chunk)]
                if frames and code(frames[0]) == "AA":
                    return began
        except OSError:
            time.sleep(0.005)


def messages(count: int) -> list[bytes]:
    """The messages of the corpus, and further messages with readings and corrections."""
    more = [
        oru(f"OBR|1||K{n // 2}", obx(value=str(60 + n % 50), at="20261127100000"), control=str(n))
        for n in range(count)
    ]
    return corpus() + more


class Outcome(NamedTuple):
    """The result of a run. equal: whether the tables equal those of the gateway that was not
    killed. unanswered: the number of messages on disk whose acknowledgement was lost.
    """

    equal: bool
    kills: int
    unanswered: int


def run(rounds: int, folder: Path, seed: int) -> Outcome:
    """Kills a gateway `rounds` times while messages are sent."""
    rng = random.Random(seed)
    sent = messages(rounds * 4)
    clean = Program(folder / "clean.sqlite", ICU_UNITS="ICU")
    for message in sent:
        deliver(clean.mllp, message)
    clean.stop()
    killed = folder / "killed.sqlite"
    program = Program(killed, ICU_UNITS="ICU")
    began: dict[bytes, float] = {}

    def send() -> None:
        for message in sent:
            began[message] = deliver(program.mllp, message)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    kills = 0
    while sender.is_alive() and kills < rounds:
        time.sleep(rng.uniform(0.0, 0.03))
        program.kill()
        kills += 1
    sender.join()
    program.stop()
    with closing(sqlite3.connect(killed)) as connection:
        rows = connection.execute("SELECT raw, at FROM received").fetchall()
    # The message was on disk before it was sent for the last time.
    unanswered = sum(raw in began and at < began[raw] for raw, at in rows)
    return Outcome(tables(folder / "clean.sqlite") == tables(killed), kills, unanswered)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        outcome = run(options.rounds, Path(name), options.seed)
    print(outcome)
    sys.exit(not outcome.equal)
