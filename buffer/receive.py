"""Reads messages from one connection to the stream."""

import asyncio
import logging
import re
import time

import aiohttp

from buffer import metrics
from buffer.pending import Pending
from buffer.sse import Event, EventParser
from wire.batches import Position, RawMessage, partition_of

log = logging.getLogger("buffer")

# The number of a message; the tables limit its digits.
SEQ = re.compile(r"[0-9]{1,18}")


class Interrupted(Exception):
    """The connection to the stream was interrupted, or the stream cannot be read."""


class Receiver:
    """Adds the messages that it reads to `pending`.

    read: the number of the last message that was read. wake: set when messages must be queued.
    room: set by the caller when the number of waiting messages may have fallen.
    """

    def __init__(self, position: Position, pending: Pending, queue_max: int) -> None:
        self._position = position
        self._pending = pending
        self._queue_max = queue_max
        self.read = position.seq
        self.wake = asyncio.Event()
        self.room = asyncio.Event()

    async def run(self, response: aiohttp.ClientResponse, last: int | None) -> None:
        """Reads to the end of the stream or, unless `last` is None, to message `last`.

        Stops reading while `queue_max` messages wait. Raises Interrupted, and aiohttp's errors.
        """
        if last is not None and self.read >= last:
            return
        parser = EventParser()
        async for chunk in response.content.iter_any():
            received = time.time()
            events = parser.feed(chunk)
            for count, event in enumerate(events, 1):
                if event.type == "end":
                    metrics.RECEIVED.inc(count - 1)
                    return
                self._take(event, received)
                if self.read == last:
                    metrics.RECEIVED.inc(count)
                    return
            metrics.RECEIVED.inc(len(events))
            if self._pending.due():
                self.wake.set()
            while self._pending.waiting >= self._queue_max:
                self.room.clear()
                await self.room.wait()
        raise Interrupted("the connection was closed")

    def _take(self, event: Event, received: float) -> None:
        seq = _seq(event, self._position.stream)
        if seq <= self.read:
            return
        if seq > self.read + 1:
            metrics.MISSING.inc(seq - self.read - 1)
            log.error("messages %d to %d are missing from the stream", self.read + 1, seq - 1)
        self.read = seq
        part = partition_of(event.data, self._position.partitions)
        if seq > self._position.parts.get(part, 0):
            self._pending.add(part, RawMessage(seq, received, event.data))


def _seq(event: Event, stream: str) -> int:
    name, _, seq = event.id.rpartition("-")
    if name != stream or not SEQ.fullmatch(seq):
        raise Interrupted(f"event id {event.id[:60]!r} is not {stream}-<number>")
    return int(seq)
