"""Moves the messages of one connection into the queues."""

import asyncio
import logging
import threading
import time
from contextlib import suppress

import aiohttp
from redis.exceptions import RedisError

from buffer import metrics
from buffer.pending import Pending
from buffer.queues import Queues, Superseded
from buffer.receive import Receiver
from buffer.settings import Settings
from wire.batches import Batch, Position
from wire.keys import JobId
from wire.stream_clock import stream_clock

log = logging.getLogger("buffer")

CHECK_SECONDS = 1.0
# Maximum number of seconds between two reads of the stored positions: BUSY while messages wait to
# be stored, IDLE otherwise. Usually the tool reports each commit, but Redis may lose a report.
BUSY, IDLE = 0.02, 0.5
# Jobs count as lost after they have been neither in Redis nor stored for this number of seconds.
LOST_AFTER = 3.0


class JobsLost(Exception):
    """Redis has lost jobs, so the position was reset to the last stored messages."""


class Transfer:
    """Moves the messages of one connection that follow `position` into the queues."""

    def __init__(self, settings: Settings, queues: Queues, position: Position) -> None:
        self._settings = settings
        self._queues = queues
        self._position = position
        self._pending = Pending(position.stream, position.partitions, settings.batch_max)
        self._receiver = Receiver(position, self._pending, settings.queue_max)
        self._wake = self._receiver.wake
        self._checked = time.monotonic()
        self._missing = 0.0

    async def run(self, response: aiohttp.ClientResponse) -> bool:
        """Runs until the whole stream is stored; returns True.

        If the settings have another number of partitions than the position, runs only until all
        partitions have reached the same message, changes the number, and returns False. Raises
        Interrupted, Superseded, JobsLost, and the errors of aiohttp and Redis.
        """
        self._find_jobs()
        last = None
        if self._position.partitions != self._settings.partitions:
            # The new partitions must start at a position that all old partitions have reached. So
            # the old partitions continue until each has reached the position of the furthest.
            last = max(self._position.parts.values(), default=0)
        receiving = asyncio.create_task(self._receiver.run(response, last))
        receiving.add_done_callback(lambda _: self._wake.set())
        over = threading.Event()
        listen = asyncio.to_thread(self._listen, asyncio.get_running_loop(), over)
        listening = asyncio.create_task(listen)
        try:
            await self._queue(receiving)
        finally:
            over.set()
            receiving.cancel()
            listening.cancel()
            await asyncio.gather(receiving, listening, return_exceptions=True)
        if last is None:
            self._end()
        else:
            self._repartition()
        return last is None

    def _find_jobs(self) -> None:
        """Adds to the pending jobs those that were queued before this connection."""
        for part, last in self._position.parts.items():
            for name in self._queues.jobs(part):
                try:
                    stream, _, last_of_job, count = JobId.parse(name)
                except ValueError:
                    continue  # the job belongs to another program
                if stream == self._position.stream and last_of_job < last:
                    self._pending.under_way(part, last_of_job, count)
            # The last job is added even if Redis has lost it, so that `_check` notices the loss.
            self._pending.under_way(part, last, 1)

    async def _queue(self, receiving: "asyncio.Task[None]") -> None:
        """Queues received messages as jobs, until all messages are stored."""
        receiver, pending = self._receiver, self._pending
        while True:
            metrics.WAITING.set(pending.waiting)
            receiver.room.set()
            if batches := pending.take_due(self._position.parts):
                self._enqueue(batches)
            elif receiving.done() and (
                not pending.waiting or (receiving.exception() and pending.first_gathered is None)
            ):
                break
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(BUSY if pending.waiting else IDLE):
                        await self._wake.wait()
                self._wake.clear()
                self._settle()
            if time.monotonic() - self._checked > CHECK_SECONDS:
                self._check()
        receiving.result()

    def _listen(self, loop: asyncio.AbstractEventLoop, over: threading.Event) -> None:
        """Wakes `_queue` when the tool has stored a batch. Runs in a thread of its own, because a
        call of `to_thread` per commit takes a tenth of the buffer's time."""
        while not over.is_set():
            try:
                if self._queues.wait_for_commit():
                    loop.call_soon_threadsafe(self._wake.set)
            except RedisError:  # `_queue` gets it too
                over.wait(1)

    def _settle(self) -> None:
        if self._pending.unsettled():
            self._pending.settle(self._queues.committed(self._position.stream) or {})

    def _check(self) -> None:
        """Renews the lease and looks for lost jobs. Raises Superseded or JobsLost."""
        if not self._queues.take_lease():
            raise Superseded
        self._count_jobs()
        gone = {part for part in self._pending.unsettled() if not self._queues.jobs(part)}
        # The commits are read after the jobs, because a job reports its commit before it leaves
        # Redis.
        self._settle()
        now = time.monotonic()
        lost = not gone.isdisjoint(self._pending.unsettled())
        self._missing = self._missing + now - self._checked if lost else 0.0
        self._checked = now
        if self._missing > LOST_AFTER:
            self._rewind()
            raise JobsLost

    def _count_jobs(self) -> None:
        for part in range(self._settings.partitions):
            metrics.JOBS.labels(part).set(len(self._queues.jobs(part)))

    def _enqueue(self, batches: list[Batch]) -> None:
        position, first_left = self._position, self._pending.first_gathered
        clocks = [position.clock] + [stream_clock(batch.messages[-1].data) for batch in batches]
        moved = Position(
            position.stream,
            self._receiver.read if first_left is None else first_left - 1,
            position.parts | {batch.part: batch.last for batch in batches},
            position.partitions,
            clock=max((clock for clock in clocks if clock is not None), default=None),
        )
        self._queues.enqueue(moved, batches)
        position.seq, position.parts = moved.seq, moved.parts
        position.clock, position.ended = moved.clock, moved.ended
        for batch, clock in zip(batches, clocks[1:], strict=True):
            metrics.BATCH.observe(len(batch.messages))
            if clock is not None:
                metrics.CLOCK.labels(batch.part).set(clock)
            _log(batch)

    def _rewind(self) -> None:
        position = self._position
        committed = self._queues.committed(position.stream)
        if committed is None:
            raise Superseded
        metrics.REWINDS.inc()
        behind = min(committed.get(part, 0) for part in self._pending.unsettled())
        log.warning(
            "stream %s: Redis lost jobs; reading again after message %d", position.stream, behind
        )
        position.seq = min(behind, position.seq)
        position.parts = committed
        self._queues.enqueue(position, [])

    def _repartition(self) -> None:
        position, partitions = self._position, self._settings.partitions
        log.info("partitions change from %d to %d", position.partitions, partitions)
        position.seq = self._receiver.read
        position.partitions = partitions
        self._queues.enqueue(position, [])

    def _end(self) -> None:
        position = self._position
        if not position.ended:
            position.ended = True
            self._queues.enqueue(position, [])
        self._count_jobs()
        metrics.WAITING.set(0)
        metrics.ENDED.set(1)
        log.info("stream %s: ended at message %d", position.stream, position.seq)


def _log(batch: Batch) -> None:
    batch_id = f"{batch.stream}-{batch.part}-{batch.last}"
    log.debug(
        "stream %s: queued %d messages up to %d for tool-%d",
        batch.stream,
        len(batch.messages),
        batch.last,
        batch.part,
        extra={"batch_id": batch_id},
    )
    if log.isEnabledFor(logging.DEBUG):
        for message in batch.messages:
            message_id = f"{batch.stream}-{message.seq}"
            log.debug(
                "message %s: %s",
                message_id,
                message.data.decode("utf-8", "replace"),
                extra={"message_id": message_id, "batch_id": batch_id},
            )
