"""Follows the stream and keeps the queues filled.

The stream is the source of truth and can be asked again from any message; the database
knows what has arrived. Redis lies between and may lose anything: when it has, the buffer
goes back to the last messages known to be in the database and reads on from there. The
tool skips what it already has.
"""

import asyncio
import logging
import re
import time
from asyncio import FIRST_COMPLETED

import aiohttp
from redis import Redis
from redis.exceptions import RedisError

from buffer import metrics
from buffer.batches import Batch, Partitioner, Pending
from buffer.queues import Position, Queues, Superseded
from buffer.settings import Settings
from buffer.sse import Event, EventParser

log = logging.getLogger("buffer")

# What names a job in RQ, and what the tables have room for.
STREAM = re.compile(r"[0-9A-Za-z_-]{1,32}")
SEQ = re.compile(r"[0-9]{1,18}")

# Hospital sends a comment every 10 s, so a longer silence is a dead connection.
SILENCE = 12.0
# How long jobs may be gone from Redis, and not in the database, before they count as lost.
LOST_AFTER = 3.0
# How long to wait for the tool's word on what the database has, once Redis has forgotten.
TOOL_WAIT = 10.0
# After how long without a failure a peer is tried again quickly.
STEADY = 10.0


class Interrupted(Exception):
    """The stream broke off, or does not answer."""


class Outage:
    """Tells of a failure once, of its end once, and grows the pause between tries.

    The pause stays long for a peer that answers, and fails again at once.
    """

    def __init__(self, peer: str, url: str = "") -> None:
        self._what = f"{peer} {url}".strip()
        self._back = metrics.RECONNECTS.labels(peer)
        self._since: float | None = None
        self._well = 0.0
        self._pause = 0.25

    async def wait(self, reason: object) -> None:
        if self._since is None:
            self._since = time.monotonic()
            if self._since - self._well > STEADY:
                self._pause = 0.25
            log.warning("%s: %s; trying again until it is back", self._what, reason)
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, 5.0)

    def over(self) -> None:
        if self._since is not None:
            self._back.inc()
            log.info("%s: back after %.1f s", self._what, time.monotonic() - self._since)
            self._since, self._well = None, time.monotonic()


class Buffer:
    """One subscriber of the stream, one writer of the queues."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._queues = Queues(redis)
        self._partitioner = Partitioner(settings.partitions)
        self._stream_outage = Outage("stream", settings.stream_url)
        self._redis_outage = Outage("redis")
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._read = 0
        self._ended: str | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as session:
            standby = False
            try:
                while True:
                    try:
                        if not self._queues.take_lease():
                            if not standby:
                                log.info("another buffer holds the stream; standing by")
                            standby = True
                            await asyncio.sleep(1)
                            continue
                        standby = False
                        if not await self._at_end(session):
                            await self._follow(session)
                    except (Interrupted, aiohttp.ClientError, TimeoutError) as error:
                        await self._stream_outage.wait(_reason(error))
                    except Superseded:
                        log.warning("the position in Redis is not the last one written; reading it")
                    except RedisError as error:
                        await self._redis_outage.wait(_reason(error))
            finally:
                try:
                    self._queues.give_up_lease()
                except RedisError:
                    log.debug("the lease runs out by itself")

    async def _at_end(self, session: aiohttp.ClientSession) -> bool:
        """True, after a while, when the source still has the stream that was read to its end."""
        if self._ended is None:
            return False
        await asyncio.sleep(2)
        async with session.head(self._settings.stream_url) as response:
            return response.headers.get("X-Stream") == self._ended

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        position = self._queues.load()
        self._redis_outage.over()
        headers = {"Accept": "text/event-stream"}
        if position is not None:
            headers["Last-Event-ID"] = f"{position.stream}-{position.seq}"
        async with session.get(self._settings.stream_url, headers=headers) as response:
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
                    # Not from its start: ask again, from there.
                    self._queues.enqueue(position, [])
                    return
            self._stream_outage.over()
            metrics.ENDED.set(0)
            log.info("stream %s: reading after message %d", stream, position.seq)
            self._read = position.seq
            await self._forward(response, position)

    async def _resume(self, stream: str) -> Position:
        """Where to begin when Redis knows nothing of this stream: after what the database has."""
        deadline = time.monotonic() + TOOL_WAIT
        while (committed := self._queues.committed(stream)) is None:
            if time.monotonic() > deadline:
                log.info("the tool has not said what is stored; beginning at the first message")
                committed = {}
                break
            await asyncio.sleep(0.2)
            self._queues.take_lease()
        # A partition that has nothing stored yet may have been told of messages all the same.
        behind = min(committed.get(part, 0) for part in range(self._settings.partitions))
        return Position(stream, behind, committed, self._settings.partitions)

    async def _forward(self, response: aiohttp.ClientResponse, position: Position) -> None:
        if self._partitioner.partitions != position.partitions:
            self._partitioner = Partitioner(position.partitions)
        pending = Pending(position.partitions, self._settings.batch_max)
        for part, last in position.parts.items():
            for job in self._queues.jobs(part):
                stream, *numbers = job.rsplit("-", 3)  # another's job has none
                if stream == position.stream and int(numbers[1]) < last:
                    pending.under_way(part, int(numbers[1]), int(numbers[2]))
            pending.under_way(part, last, 1)
        level = None
        if position.partitions != self._settings.partitions:
            # Positions of the old partitions mean nothing to the new ones, unless all are the
            # same: so the old ones go on until all is stored up to the furthest of them.
            level = max(position.parts.values(), default=0)
        receiver = asyncio.create_task(self._receive(response, position, pending, level))
        try:
            if await self._queue(position, pending, receiver):
                if level is None:
                    self._end(position)
                else:
                    self._repartition(position)
        finally:
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)

    async def _receive(
        self,
        response: aiohttp.ClientResponse,
        position: Position,
        pending: Pending,
        level: int | None,
    ) -> None:
        """Takes what arrives until the stream's end, or message `level`.

        Stops reading beyond QUEUE_MAX.
        """
        if level is not None and self._read >= level:
            return
        parser = EventParser()
        async for chunk in response.content.iter_any():
            received = time.time()
            events = parser.feed(chunk)
            for event in events:
                if event.type == "end":
                    metrics.RECEIVED.inc(len(events) - 1)
                    return
                seq = _seq(event, position.stream)
                if seq <= self._read:
                    continue
                if seq > self._read + 1:
                    metrics.MISSING.inc(seq - self._read - 1)
                    log.error(
                        "messages %d to %d are missing in the stream", self._read + 1, seq - 1
                    )
                self._read = seq
                part = self._partitioner.part(event.data)
                if seq > position.parts.get(part, 0):
                    pending.add(part, seq, received, event.data)
                if seq == level:
                    return
            metrics.RECEIVED.inc(len(events))
            self._arrived.set()
            while pending.waiting >= self._settings.queue_max:
                self._room.clear()
                await self._room.wait()
        raise Interrupted("the connection was closed")

    async def _queue(
        self, position: Position, pending: Pending, receiver: "asyncio.Task[None]"
    ) -> bool:
        """Turns what has arrived into jobs, until all of it is in the database.

        False when it must be asked for again, because Redis has lost jobs.
        """
        checked = time.monotonic()
        missing = 0.0
        while True:
            pending.settle(self._queues.committed(position.stream) or {})
            metrics.WAITING.set(pending.waiting)
            self._room.set()
            if batches := pending.take_due(position.parts):
                self._enqueue(position, pending, batches)
            elif pending.first_gathered is not None:
                await asyncio.sleep(0.003)
            elif not receiver.done():
                self._arrived.clear()
                arrival = asyncio.create_task(self._arrived.wait())
                await asyncio.wait({arrival, receiver}, timeout=0.5, return_when=FIRST_COMPLETED)
                arrival.cancel()
            elif receiver.exception() or not pending.unsettled():
                break
            else:
                await asyncio.sleep(0.05)
            now = time.monotonic()
            if now - checked > 1:
                if not self._queues.take_lease():
                    raise Superseded
                self._count_jobs()
                gone = {part for part in pending.unsettled() if not self._queues.jobs(part)}
                # In this order: a job tells what it has committed before it leaves Redis.
                pending.settle(self._queues.committed(position.stream) or {})
                lost = not gone.isdisjoint(pending.unsettled())
                missing = missing + now - checked if lost else 0.0
                checked = now
                if missing > LOST_AFTER:
                    self._go_back(position, pending)
                    return False
        receiver.result()
        return True

    def _count_jobs(self) -> None:
        for part in range(self._settings.partitions):
            metrics.JOBS.labels(part).set(len(self._queues.jobs(part)))

    def _enqueue(self, position: Position, pending: Pending, batches: list[Batch]) -> None:
        first_left = pending.first_gathered
        moved = Position(
            position.stream,
            self._read if first_left is None else first_left - 1,
            position.parts | {batch.part: batch.last for batch in batches},
            position.partitions,
        )
        self._queues.enqueue(moved, batches)
        position.seq, position.parts = moved.seq, moved.parts
        for batch in batches:
            metrics.BATCH.observe(len(batch.messages))
            clock = metrics.stream_clock(batch.messages[-1][2])
            if clock is not None:
                metrics.CLOCK.labels(batch.part).set(clock)
            batch_id = f"{position.stream}-{batch.part}-{batch.last}"
            log.info(
                "stream %s: queued %d messages up to %d for tool-%d",
                position.stream,
                len(batch.messages),
                batch.last,
                batch.part,
                extra={"batch_id": batch_id},
            )
            if log.isEnabledFor(logging.DEBUG):
                for seq, _, data in batch.messages:
                    message_id = f"{position.stream}-{seq}"
                    log.debug(
                        "message %s: %s",
                        message_id,
                        data.decode("utf-8", "replace"),
                        extra={"message_id": message_id, "batch_id": batch_id},
                    )

    def _go_back(self, position: Position, pending: Pending) -> None:
        committed = self._queues.committed(position.stream)
        if committed is None:
            raise Superseded
        metrics.REWINDS.inc()
        behind = min(committed.get(part, 0) for part in pending.unsettled())
        log.warning(
            "stream %s: jobs were lost in Redis; reading again after %d", position.stream, behind
        )
        position.seq = min(behind, position.seq)
        position.parts = committed
        self._queues.enqueue(position, [])

    def _repartition(self, position: Position) -> None:
        log.info("partitions change from %d to %d", position.partitions, self._settings.partitions)
        position.seq = self._read
        position.partitions = self._settings.partitions
        self._queues.enqueue(position, [])

    def _end(self, position: Position) -> None:
        if not position.ended:
            position.ended = True
            self._queues.enqueue(position, [])
        self._count_jobs()
        metrics.WAITING.set(0)
        metrics.ENDED.set(1)
        log.info("stream %s: ended at message %d", position.stream, position.seq)
        self._ended = position.stream


def _seq(event: Event, stream: str) -> int:
    name, _, seq = event.id.rpartition("-")
    if name != stream or not SEQ.fullmatch(seq):
        raise Interrupted(f"event id {event.id[:60]!r} is not {stream}-<number>")
    return int(seq)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
