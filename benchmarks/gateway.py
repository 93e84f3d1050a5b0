"""Measures the gateway: from HL7 over MLLP to its log, compared with bare writes of the same bytes,
and from the sender to the stored prediction."""

import argparse
import asyncio
import os
import socket
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.bench import Bench, Result, seconds
from benchmarks.databases import CannotMeasure, open_database
from benchmarks.pipeline import Pipeline
from embedded.programs import get_json
from embedded.stack import free_port
from gateway.mllp import wrap
from gateway.simulate import Monitor, parser

CONNECTIONS = 50
READINGS_PER_SECOND = 500
LOOK = 0.005


def run(bench: Bench) -> Iterator[Result]:
    yield from _throughput(bench, 100 if bench.quick else 1_000)
    yield _one_sender(bench, 300 if bench.quick else 2_000)
    yield _to_prediction(bench, 5 if bench.quick else 30)


def memory(bench: Bench) -> Iterator[Result]:
    """Measures the resident memory while many messages arrive."""
    count = 20_000 if bench.quick else 1_000_000
    found: dict[int, float] = {}
    with _gateway(bench) as (pipeline, port):
        pid = pipeline.pids("gateway")[0]
        step = count // 10 // CONNECTIONS
        for number in range(10):
            frames = [_frames(step, 10, c, number) for c in range(CONNECTIONS)]
            asyncio.run(_send_all(port, frames))
            sent = (number + 1) * step * CONNECTIONS
            found[sent] = processes.memory(pid, peak=False) / 1e6
            bench.say(f"  {sent:,} messages: {found[sent]:.0f} MB")
    first, *_, last = found.values()
    yield Result(
        "gateway memory",
        f"memory of gateway after {count:,} messages of 10 OBX",
        *(last, "MB", first, "after a tenth of the messages"),
        {"mb_by_messages": found},
    )


def _throughput(bench: Bench, each: int) -> Iterator[Result]:
    frames = [_frames(each, 10, c) for c in range(CONNECTIONS)]
    count = sum(map(len, frames))
    with _gateway(bench) as (pipeline, port):
        pid = pipeline.pids("gateway")[0]
        before, machine = processes.cpu_seconds(pid), processes.machine_cpu_seconds()
        own = time.process_time()
        taken = seconds(lambda: asyncio.run(_send_all(port, frames)))
        used = processes.cpu_seconds(pid) - before
        own = time.process_time() - own
        others = processes.machine_cpu_seconds() - machine - used - own
    groups = [b"".join(group) for group in zip(*frames, strict=True)]
    bare = seconds(lambda: _write(bench.folder / "bare", groups))
    yield Result(
        "gateway",
        f"gateway, {CONNECTIONS} connections, ORU of 10 OBX",
        *(count / taken, "messages/s", count / bare),
        f"write and fsync of the same bytes, {CONNECTIONS} messages at a time",
        {
            "cpu_us_per_message": {
                "gateway": round(used / count * 1e6),
                "senders": round(own / count * 1e6),
            },
            "messages": count,
            "others_cpu_share": round(max(0.0, others) / taken / (os.cpu_count() or 1), 3),
        },
    )


def _one_sender(bench: Bench, count: int) -> Result:
    frames = _frames(count, 10, 0)
    waits = []
    with _gateway(bench) as (_, port), socket.create_connection(("127.0.0.1", port)) as sender:
        for frame in frames:
            waits.append(seconds(partial(_exchange, sender, frame)) * 1e3)
    path = bench.folder / "bare"
    bare = [seconds(partial(_write, path, [frame])) * 1e3 for frame in frames]
    return Result(
        "gateway ack p99",
        "gateway, one sender that waits for each answer, p99",
        *(_p99(waits), "ms", _p99(bare), "write and fsync of the same bytes, p99"),
        {"p50": statistics.median(waits), "bare_p50": statistics.median(bare)},
    )


def _to_prediction(bench: Bench, length: int) -> Result:
    url = bench.server.fresh("gateway")
    with _gateway(bench, url, "redis", "modelapi", "tool") as (pipeline, port):
        pipeline.start("buffer")
        asyncio.run(_send_all(port, [_frames(20, 10, CONNECTIONS)]))  # warms up all programs
        pipeline.wait(pipeline.stored, "the first messages were not stored")
        waits = asyncio.run(_predicted(port, url, pipeline, length))
    bench.server.drop("gateway")
    return Result(
        "gateway to prediction p99",
        f"sender → stored prediction at {READINGS_PER_SECOND} readings/s, p99",
        *(_p99(waits), "ms", None, ""),
        {"p50": statistics.median(waits), "predictions": len(waits)},
    )


@contextmanager
def _gateway(bench: Bench, url: str = "", *others: str) -> Iterator[tuple[Pipeline, int]]:
    """Starts other programs, then a gateway; yields the programs and the MLLP port."""
    http, mllp = str(free_port()), str(free_port())
    address = f"http://127.0.0.1:{http}"
    settings = {"GATEWAY_PORT": http, "MLLP_PORT": mllp, "TIME_ZONE": "Europe/Berlin"}
    settings |= {"STREAM_URL": f"{address}/sub", "HOSPITAL_URL": address}
    with bench.pipeline(bench.folder, url or "sqlite:///unused", None, **settings) as pipeline:
        pipeline.ready(*others)
        pipeline.start("gateway")
        pipeline.wait(lambda: get_json(f"{address}/health"), "the gateway did not start")
        yield pipeline, int(mllp)


def _frames(count: int, observations: int, number: int, seed: int = 1) -> list[bytes]:
    """The MLLP frames of sender `number`: the admissions to its beds, then its readings."""
    options: argparse.Namespace = parser().parse_args(
        ["--messages", str(count), "--observations", str(observations), "--seed", str(seed)]
    )
    return [wrap(message) for message in Monitor(number, options).messages()]


async def _send_all(port: int, frames: list[list[bytes]]) -> None:
    """Sends each list over a connection of its own, and waits for the answer to each frame."""

    async def send(own: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for frame in own:
            writer.write(frame)
            _acknowledged(await reader.readuntil(b"\x1c\r"))
        writer.close()

    await asyncio.gather(*map(send, frames))


def _acknowledged(answer: bytes) -> None:
    if b"MSA|AA|" not in answer:
        raise CannotMeasure(f"the gateway answered {answer!r}")


def _exchange(sender: socket.socket, frame: bytes) -> None:
    sender.sendall(frame)
    answer = b""
    while not answer.endswith(b"\x1c\r"):
        answer += sender.recv(65536)
    _acknowledged(answer)


async def _predicted(port: int, url: str, pipeline: Pipeline, length: int) -> list[float]:
    """The milliseconds from the sending of each reading until its prediction is in the database."""
    sent: dict[bytes, float] = {}
    seen: dict[int, float] = {}
    over = asyncio.Event()

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started = time.perf_counter()
        for number, frame in enumerate(_frames(length * READINGS_PER_SECOND // 10, 10, 99)):
            await asyncio.sleep(max(0.0, started + number * 10 / READINGS_PER_SECOND - _now()))
            sent[frame[1:-2]] = _now()
            writer.write(frame)
            _acknowledged(await reader.readuntil(b"\x1c\r"))
        writer.close()
        await asyncio.to_thread(pipeline.wait, pipeline.stored, "not all messages were stored")
        await asyncio.sleep(1)
        over.set()

    def look(cursor: Any, floor: int) -> None:
        cursor.execute(f"SELECT seq FROM predictions WHERE seq > {floor} AND output IS NOT NULL")
        now = _now()
        for (seq,) in cursor.fetchall():
            seen.setdefault(seq, now)

    async def watch() -> None:
        with closing(open_database(url)) as connection:
            cursor = connection.cursor()
            while not over.is_set():
                look(cursor, max(seen, default=0) - READINGS_PER_SECOND)
                connection.commit()
                await asyncio.sleep(LOOK)
            look(cursor, 0)  # finds predictions that were stored long after those of later readings

    await asyncio.gather(send(), watch())
    with closing(sqlite3.connect(pipeline.environ["GATEWAY_LOG"])) as log:
        rows = log.execute("SELECT raw, first, last FROM received").fetchall()
    waits = [
        (seen[seq] - sent[raw]) * 1e3
        for raw, first, last in rows
        if raw in sent
        for seq in range(first, last + 1)
        if seq in seen
    ]
    expected = length * READINGS_PER_SECOND
    if len(waits) < expected // 2:
        raise CannotMeasure(f"only {len(waits)} of {expected} predictions arrived")
    return waits


def _write(path: Path, parts: list[bytes]) -> None:
    """Appends the parts to a file, with an fsync after each."""
    with path.open("ab", buffering=0) as file:
        for part in parts:
            file.write(part)
            os.fdatasync(file.fileno())


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _now() -> float:
    return time.perf_counter()
