"""Follows the stream.

The stream is the source of truth and can replay any message; the database records which messages
are stored. Redis holds the messages on their way to the tool. If Redis loses them, the buffer reads
the stream again after the last stored message. The tool skips messages that are already stored.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from redis import Redis
from redis.exceptions import RedisError

from buffer import metrics
from buffer.outage import Outage
from buffer.queues import Queues, Superseded
from buffer.receive import Interrupted
from buffer.settings import Settings
from buffer.transfer import JobsLost, Transfer
from wire.batches import Position

log = logging.getLogger("buffer")

# The valid names of a stream. Job ids contain the name, and the tables limit its length.
STREAM = re.compile(r"[0-9A-Za-z_-]{1,32}")
# A connection counts as dead after this number of silent seconds; the source sends a comment
# every 10 s.
SILENCE = 12.0
# Seconds after which the buffer logs that the tool has not reported which messages are stored.
TOOL_WAIT = 10.0


class Buffer:
    """Follows the stream while it holds the lease; other buffers stand by."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._queues = Queues(redis)
        self._stream_outage = Outage("stream", settings.stream_url)
        self._redis_outage = Outage("redis")
        self._ended: str | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as session:
            try:
                while True:
                    try:
                        await self._wait_for_lease()
                        if not await self._at_end(session):
                            await self._follow(session)
                    except (Interrupted, aiohttp.ClientError, TimeoutError) as error:
                        await self._stream_outage.wait(error)
                    except Superseded:
                        log.warning(
                            "Redis has another lease or position; reading the position again"
                        )
                    except JobsLost:
                        continue
                    except RedisError as error:
                        await self._redis_outage.wait(error)
            finally:
                try:
                    self._queues.give_up_lease()
                except RedisError:
                    log.debug("cannot give up the lease; it expires by itself")

    async def _wait_for_lease(self) -> None:
        standing_by = False
        while not self._queues.take_lease():
            if not standing_by:
                log.info("another buffer holds the lease; standing by")
            standing_by = True
            await asyncio.sleep(1)

    async def _at_end(self, session: aiohttp.ClientSession) -> bool:
        """Waits 2 s if this buffer has read the stream to its end. Returns whether the source still
        serves that stream, and Redis has this buffer's position."""
        if self._ended is None:
            return False
        await asyncio.sleep(2)
        # The tool deletes the position if the database lacks messages.
        if not self._queues.is_current():
            return False
        async with session.head(self._settings.stream_url) as response:
            return response.headers.get("X-Stream") == self._ended

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        self._ended = None
        position = self._queues.load()
        self._redis_outage.over()
        async with self._subscribe(session, position) as response:
            if response.status != 200:
                raise Interrupted(f"answered {response.status} {response.reason}")
            stream = response.headers.get("X-Stream", "")
            if not STREAM.fullmatch(stream):
                raise Interrupted(
                    f"answered with X-Stream {stream[:40]!r}: "
                    "expected 1 to 32 letters, digits, _ or -"
                )
            if position is None or position.stream != stream:
                position = await self._resume(stream)
                if position.seq:
                    # This connection starts at the oldest message, so subscribe again after the
                    # position.
                    self._queues.enqueue(position, [])
                    return
            self._stream_outage.over()
            metrics.ENDED.set(0)
            log.info("stream %s: reading after message %d", stream, position.seq)
            ended = await Transfer(self._settings, self._queues, position).run(response)
            self._ended = stream if ended else None

    @asynccontextmanager
    async def _subscribe(
        self, session: aiohttp.ClientSession, position: Position | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Requests the messages after `position`. If the source no longer has the next message,
        requests all messages that it has.
        """
        url, headers = self._settings.stream_url, {"Accept": "text/event-stream"}
        if position is not None:
            after = {"Last-Event-ID": f"{position.stream}-{position.seq}"}
            async with session.get(url, headers=headers | after) as response:
                if response.status != 410:
                    yield response
                    return
            log.error(
                "stream %s: the source no longer has message %d; continuing with its oldest one",
                position.stream,
                position.seq + 1,
            )
        async with session.get(url, headers=headers) as response:
            yield response

    async def _resume(self, stream: str) -> Position:
        """The position after the last stored messages, for a stream of which Redis has no position.

        Waits until the tool has reported these messages. Raises Superseded.
        """
        warn_at: float | None = time.monotonic() + TOOL_WAIT
        while (committed := self._queues.committed(stream)) is None:
            if warn_at is not None and time.monotonic() > warn_at:
                log.info("waiting until the tool reports the stored messages")
                warn_at = None
            await asyncio.sleep(0.2)
            if not self._queues.take_lease():
                raise Superseded
        # If the setting has changed meanwhile, the former partitions are finished first.
        partitions = self._queues.partitions(stream) or self._settings.partitions
        # A partition without stored messages may still have messages in the stream.
        behind = min(committed.get(part, 0) for part in range(partitions))
        return Position(stream, behind, committed, partitions)
