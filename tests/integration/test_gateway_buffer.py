"""Tests a real buffer and a real Redis behind a real gateway."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from buffer.follow import Buffer
from buffer.settings import Settings
from gateway.log import Log
from tests.support import servers
from tests.support.gateway import Running, gateway, oru, send_all
from tests.support.hl7_corpus import obx
from wire.settings import HttpUrl


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    """A Redis in which the tool has reported that nothing is stored yet."""
    with servers.redis_server(tmp_path) as connection:
        connection.hset("icu:committed", "since", 1)
        yield connection


async def buffered(running: Running, redis: Any, reached: Callable[[], bool]) -> None:
    """Runs a buffer behind the gateway until the condition `reached` is true."""
    task = asyncio.create_task(
        Buffer(Settings(stream_url=HttpUrl(f"{running.url}/sub")), redis).run()
    )
    try:
        async with asyncio.timeout(30):
            while not reached():
                await asyncio.sleep(0.02)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def queued(redis: Any) -> list[int]:
    """The numbers of the messages in all jobs."""
    batches = [msgspec.msgpack.decode(redis.get(key)) for key in redis.scan_iter("icu:batch:*")]
    return sorted(seq for batch in batches for seq, _, _ in batch[3])


def test_a_buffer_reports_the_messages_that_the_gateway_has_removed(
    tmp_path: Path, redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def readings(first: int) -> list[bytes]:
        return [
            oru(obx(value=str(n), at=f"2026112710{n:02}00"), control=str(n))
            for n in range(first, first + 5)
        ]

    async def run(first: int, last: int) -> None:
        async with gateway(tmp_path / "log") as running:
            await send_all(running.mllp, readings(first))
            await buffered(running, redis, lambda: last in queued(redis))

    # The gateway gets an admission and five readings, and then five more readings. It removes three
    # of these before the buffer reads them.
    asyncio.run(run(0, 6))

    async def unseen() -> None:
        async with gateway(tmp_path / "log") as running:
            await send_all(running.mllp, readings(10))

    asyncio.run(unseen())
    with closing(Log(tmp_path / "log")) as log:
        log.connection.execute("UPDATE received SET at = 0 WHERE last <= 9")
        while log.prune(1.0):
            pass
    asyncio.run(run(20, 16))
    assert queued(redis) == [*range(1, 7), *range(10, 17)]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert (7, 9) in [record.args for record in errors]
    position = json.loads(redis.get("icu:position"))
    assert position["seq"] == 16
