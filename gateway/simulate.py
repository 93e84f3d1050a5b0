"""Sends a synthetic ward as HL7 over MLLP, optionally with the faults of real senders.

python -m gateway.simulate --connections 4 --messages 1000 --split --repeat 0.1
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from gateway.mllp import FrameReader, wrap

# Code, unit, mean and standard deviation; the last two are typical of a ward. Monitors send the
# first five; people chart the coma scale.
VITALS = (
    ("8480-6^Systolic^LN", "mm[Hg]", 122.0, 13.7),
    ("8867-4^Heart rate^LN", "/min", 83.0, 7.5),
    ("9279-1^Respiration^LN", "/min", 19.5, 2.7),
    ("59408-5^SpO2^LN", "%", 96.6, 1.7),
    ("8310-5^Temperature^LN", "Cel", 36.9, 0.4),
    ("9269-2^Glasgow Coma Scale^LN", "{score}", 12.5, 2.5),
)


class Monitor:
    """One sender. It has a few beds, a clock and control ids of its own."""

    def __init__(self, number: int, options: argparse.Namespace) -> None:
        self._number = number
        self._options = options
        self._random = random.Random(options.seed * 1000 + number)
        self._now = datetime.now(UTC) - timedelta(hours=2)
        self._values = {code: mean for code, _, mean, _ in VITALS}
        self._control = 0

    def messages(self) -> Iterator[bytes]:
        """Yields an admission for each bed, then readings and the requested faults."""
        chance, options = self._random.random, self._options
        for bed in range(1, options.beds + 1):
            yield self._adt("A01", bed)
        sent: list[tuple[int, int, datetime]] = []
        for number in range(options.messages):
            if options.restart and number and number % options.restart == 0:
                self._control = 0
            self._now += timedelta(seconds=self._random.randint(1, 20))
            bed = self._random.randint(1, options.beds)
            late = timedelta(hours=1) if chance() < options.late else timedelta()
            message = self._oru(bed, number, self._now - late, "F")
            sent = [*sent[-50:], (bed, number, self._now - late)]
            yield message
            if chance() < options.repeat:
                yield message
            if chance() < options.corrections:
                yield self._oru(*self._random.choice(sent), "C")
        if options.merges:
            yield self._merge()

    def _header(self, kind: str) -> str:
        self._control += 1
        at = self._now + timedelta(seconds=self._options.drift)
        return (
            f"MSH|^~\\&|SIM{self._number}|ICU|||{at:%Y%m%d%H%M%S}+0000||{kind}"
            f"|{self._control}|P|2.5\r"
        )

    def _patient(self, bed: int) -> str:
        born = 1940 + 7 * bed % 60
        return (
            f"PID|||{self._number}-{bed}^^^SIM^MR||||{born}0101\rPV1||I|ICU^{self._number}^{bed}\r"
        )

    def _adt(self, event: str, bed: int) -> bytes:
        at = f"{self._now:%Y%m%d%H%M%S}+0000"
        text = self._header(f"ADT^{event}") + f"EVN|{event}|{at}\r" + self._patient(bed)
        return text.encode()

    def _merge(self) -> bytes:
        text = self._header("ADT^A40") + self._patient(1).partition("PV1")[0]
        return (text + f"MRG|{self._number}-{self._options.beds}^^^SIM^MR\r").encode()

    def _oru(self, bed: int, filler: int, at: datetime, status: str) -> bytes:
        lines = [self._header("ORU^R01"), self._patient(bed), f"OBR|1||{filler}^SIM\r"]
        for n in range(self._options.observations):
            code, unit, mean, deviation = VITALS[n % len(VITALS)]
            pull = 0.2 * (mean - self._values[code])
            self._values[code] += pull + self._random.gauss(0, 0.5 * deviation)
            value = self._values[code]
            if unit == "%":
                value = min(value, 100.0)
            elif unit == "{score}":
                value = min(max(round(value), 3), 15)
            lines.append(
                f"OBX|{n + 1}|NM|{code}|{n // len(VITALS)}|{value:.1f}|{unit}|||||{status}"
                f"|||{at:%Y%m%d%H%M%S}+0000\r"
            )
        return "".join(lines).encode()


async def deliver(monitor: Monitor, options: argparse.Namespace) -> list[float]:
    """Sends each message and waits for its answer; returns the seconds for each. Raises OSError,
    for example if a message is not acknowledged."""
    reader, writer = await asyncio.open_connection(options.host, options.port)
    frames, waits = FrameReader(1 << 20), []
    pause = options.connections / options.rate if options.rate else 0.0
    for message in monitor.messages():
        started = time.perf_counter()
        frame = wrap(message)
        middle = len(frame) // 2 if options.split else len(frame)
        for piece in (frame[:middle], frame[middle:]):
            writer.write(piece)
            await writer.drain()
        found: list[bytes] = []
        while not found:
            chunk = await reader.read(65536)
            if not chunk:
                raise ConnectionError("the gateway closed the connection without an answer")
            found = [answer.content for answer in frames.feed(chunk)]
        if b"MSA|AA" not in found[0]:
            raise ConnectionError(f"not acknowledged: {found[0].decode(errors='replace')}")
        waits.append(time.perf_counter() - started)
        if pause:
            await asyncio.sleep(max(0.0, started + pause - time.perf_counter()))
    writer.close()
    return waits


async def simulate(options: argparse.Namespace) -> list[float]:
    """Runs all connections in parallel; returns the sorted seconds until each acknowledgement."""
    monitors = [Monitor(number, options) for number in range(1, options.connections + 1)]
    waits = await asyncio.gather(*(deliver(monitor, options) for monitor in monitors))
    return sorted(wait for some in waits for wait in some)


def parser() -> argparse.ArgumentParser:
    """The command-line options; all have defaults."""
    found = argparse.ArgumentParser(
        prog="python -m gateway.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--host", default="127.0.0.1", help="host of the gateway")
    add("--port", type=int, default=2575, help="MLLP port of the gateway")
    add("--connections", type=int, default=4, help="number of connections")
    add(
        "--messages",
        type=int,
        default=100,
        help="number of messages with readings per connection",
    )
    add("--observations", type=int, default=len(VITALS), help="number of OBX segments per message")
    add("--beds", type=int, default=4, help="number of beds per connection")
    add("--rate", type=float, default=0.0, help="messages per second in total; 0: full speed")
    add("--seed", type=int, default=1, help="seed of the random values")
    add("--split", action="store_true", help="write each message in two pieces")
    add("--repeat", type=float, default=0.0, help="share of messages that are sent twice")
    add("--corrections", type=float, default=0.0, help="share of messages that are corrected")
    add("--late", type=float, default=0.0, help="share of messages whose values are an hour old")
    add("--restart", type=int, default=0, help="number of messages after which control ids restart")
    add("--drift", type=float, default=0.0, help="seconds by which the senders' clocks are ahead")
    add("--merges", action="store_true", help="at the end, merge the last patient into the first")
    return found


def main() -> int:
    options = parser().parse_args()
    started = time.perf_counter()
    try:
        waits = asyncio.run(simulate(options))
    except OSError as error:
        print(f"simulate: {error}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - started
    print(
        f"{len(waits):,} messages acknowledged in {seconds:.1f} s ({len(waits) / seconds:,.0f}/s); "
        f"p50 {1000 * waits[len(waits) // 2]:.1f} ms, "
        f"p99 {1000 * waits[len(waits) * 99 // 100]:.1f} ms"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
