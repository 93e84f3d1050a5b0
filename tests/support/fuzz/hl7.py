"""Sends damaged HL7 to the gateway's framing, parsing and log, and to a running gateway."""

import asyncio
import contextlib
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.codes import Codes
from gateway.hl7 import Unreadable, parse, split
from gateway.inbox import digest
from gateway.log import Log, Received
from gateway.mllp import FrameReader, wrap
from gateway.reading import Reader
from gateway.ward import Ward
from tests.support.fuzz.damage import damaged
from tests.support.gateway import code, gateway, send
from tests.support.hl7_corpus import corpus

# Typical faults of real and hostile senders, besides changes of single bytes.
PIECES = (
    *(b"\x0b", b"\x1c\r", b"\x1c", b"\r", b"\n", b"|", b"^", b"~", b"\\", b"&", b"\x00", b"\xff"),
    *(b"\\X", b"\\.br\\", b'""', b"NaN", b"1e309", b"-0", b"9" * 40, b"MSH|", b"BHS|", b"\rPID|"),
    *(b"\rOBX|1|NM|8867-4^^LN||", b"20260329023000", b"+9999", b"A" * 3_000, "\u00fc".encode()),
)


CORPUS = corpus()


def hl7(rng: random.Random, inputs: int) -> Counter[str]:
    """Runs damaged messages through framing, parsing and the log; counts the results."""
    with tempfile.TemporaryDirectory() as folder:
        return _read(rng, inputs, Path(folder, "log"))


def mllp(rng: random.Random, inputs: int) -> Counter[str]:
    """Sends damaged messages to a real gateway, 100 per connection; counts its answers."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_answered(rng, inputs, Path(folder, "log")))


def _damaged(rng: random.Random) -> bytes:
    return damaged(rng, rng.choice(CORPUS), 6, PIECES)


def _read(rng: random.Random, inputs: int, log: Path) -> Counter[str]:
    reader = Reader(Codes(), ZoneInfo("Europe/Berlin"), "", lambda system, code: None)
    store = Log(log)
    ward = Ward(store, ("ICU",), True, lambda: "9999")
    frames = FrameReader(1 << 16)
    counts: Counter[str] = Counter()
    for number in range(inputs):
        if number % 500 == 0:
            store.connection.execute("DELETE FROM received WHERE id < ?", (number - 500,))
            store.begin()
        for frame in frames.feed(wrap(_damaged(rng))):
            for content in split(frame.content):
                with contextlib.suppress(Unreadable):
                    facts = reader.facts(parse(content))
                    counts["read" if facts else "not read"] += 1
                    for fact in facts or ():
                        ward.apply(fact)
                    ward.end_message()
                    name = digest(str(sum(counts.values())).encode())
                    store.add_received(Received(name, 0.0, "fuzz", "hl7", b""))
        counts["inputs"] += 1
        if number % 500 == 499:
            ward.flush()
            store.flush()
            store.commit()
    if store.connection.in_transaction:
        ward.flush()
        store.flush()
        store.commit()
    store.close()
    return counts


async def _answered(rng: random.Random, inputs: int, log: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    async with gateway(log, MESSAGE_MAX="65536") as running:
        for _ in range(0, inputs, 100):
            frames = list(_frames(rng, 100))
            answers = await send(running.mllp, frames, len(frames))
            assert len(answers) == len(frames), "a connection was closed without an answer"
            counts.update(code(answer) for answer in answers)
    return counts


def _frames(rng: random.Random, count: int) -> Iterator[bytes]:
    """Puts damaged messages into valid frames."""
    while count:
        content = _damaged(rng).replace(b"\x0b", b"")
        while b"\x1c\r" in content:
            content = content.replace(b"\x1c\r", b"")
        # Skips frames that do not get exactly one answer: those without a message, those that may
        # ask for no answer (MSH-15 or MSH-16 NE), and those with several messages.
        if content.strip() and b"NE" not in content and len(split(content)) == 1:
            count -= 1
            yield wrap(content)
