"""Queues the messages of all receivers, and stores several in one transaction (group commit)."""

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from gateway import metrics
from gateway.facts import Fact, Unusable
from gateway.log import Log, Numbers, Received, days_ago
from gateway.ward import Ward
from wire.messages import Message

log = logging.getLogger("gateway")

# A transaction ends after this number of messages or seconds, so that its first messages do not
# wait too long.
AT_ONCE = 200
SECONDS_AT_ONCE = 0.02
# Number of waiting bytes at which the receivers stop reading.
WAITING = 64 << 20
PRUNE_EVERY = 60.0  # seconds


class DiskFailed(Exception):
    """The log could not be written; the message is not stored."""


class Direct(msgspec.Struct, frozen=True):
    """A message in the stream's own format. data: its JSON."""

    message: Message
    data: bytes


class Item(msgspec.Struct, frozen=True):
    """A message to be stored. content: its facts; None if messages of its type are not used."""

    received: Received
    content: Sequence[Fact | Direct] | None


class Logged(msgspec.Struct, frozen=True):
    """The result for a stored message. known: the bytes of an earlier message with the same digest,
    if there is one.
    """

    numbers: Numbers
    known: bytes | None = None


Waiting = tuple[Item, "asyncio.Future[Logged]"]


def digest(*parts: bytes) -> bytes:
    """The SHA-256 of the parts. It identifies a message for as long as the log keeps it."""
    return hashlib.sha256(b"\0".join(parts)).digest()


class Inbox:
    """Queues messages, and writes them to the log. The future that `put` returns is done when the
    message is on disk or the disk has failed."""

    def __init__(self, store: Log, ward: Ward, keep_days: float) -> None:
        self._log = store
        self._ward = ward
        self._keep_days = keep_days
        self._waiting: list[Waiting] = []
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._pruned = 0.0
        self._stopping = False
        self._more = True  # whether readings of earlier messages still have to be moved
        # These functions are called after each commit.
        self.committed: list[Callable[[], None]] = []

    def put(self, item: Item) -> "asyncio.Future[Logged]":
        """Queues a message. Awaiting the result may raise DiskFailed."""
        future: asyncio.Future[Logged] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._bytes += len(item.received.raw)
        if self._bytes > WAITING:
            self._room.clear()
        self._arrived.set()
        return future

    @property
    def full(self) -> bool:
        """Whether more than WAITING bytes wait to be written; the receivers must then stop."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Waits while the inbox is full."""
        await self._room.wait()

    async def run(self) -> None:
        """Writes messages until `stop` is called and no message is left.

        Do not cancel it: a commit may be running in a thread, and only one thread may use the
        connection.
        """
        while self._waiting or not self._stopping:
            try:
                if not self._more:
                    await asyncio.wait_for(self._arrived.wait(), PRUNE_EVERY)
            except TimeoutError:
                await self._prune()
                continue
            if self._waiting or not self._stopping:
                await self._write()
            if time.monotonic() - self._pruned > PRUNE_EVERY:
                await self._prune()

    def stop(self) -> None:
        """Makes `run` end once all queued messages are on disk."""
        self._stopping = True
        self._arrived.set()

    async def _write(self) -> None:
        batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
        if not self._waiting and not self._stopping:
            self._arrived.clear()
        started = time.perf_counter()
        try:
            results = self._fill(batch, self._ward.step)
            # The commit runs in a thread, so that messages can be received while the disk writes.
            await asyncio.to_thread(self._log.commit)
        except Exception as error:
            # After a bug, too, the senders get an answer, and the next messages are written.
            self._failed(batch, error)
            await asyncio.sleep(0.05)
            if not batch:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), 1.0)
            return
        self._put_back(batch[len(results) :])
        del batch[len(results) :]
        self._log.committed = self._log.last
        metrics.COMMIT.observe(time.perf_counter() - started)
        if batch:
            metrics.GROUP.observe(len(batch))
        for (item, future), result in zip(batch, results, strict=True):
            metrics.logged(item.received, result.known is not None, item.content is None)
            if not future.done():
                future.set_result(result)
        self._settle(batch)
        for call in self.committed:
            call()

    def _put_back(self, rest: list[Waiting]) -> None:
        if rest:
            self._waiting[:0] = rest
            self._arrived.set()

    def _settle(self, batch: list[Waiting]) -> None:
        self._bytes -= sum(len(item.received.raw) for item, _ in batch)
        if self._bytes <= WAITING:
            self._room.set()

    def _failed(self, batch: list[Waiting], error: Exception) -> None:
        if isinstance(error, sqlite3.Error):
            log.error("the gateway's log file cannot be written: %s", error)
            metrics.DISK_FAILURES.inc()
        else:
            log.exception("messages could not be written", exc_info=_without_values(error))
            metrics.FAULTS.inc()
        self._roll_back()
        for _, future in batch:
            if not future.done():
                future.set_exception(DiskFailed(str(error)))
        self._settle(batch)

    def _roll_back(self) -> None:
        try:
            self._log.rollback()
        except sqlite3.Error as error:
            log.error("the gateway's log file cannot be read: %s", error)
        self._ward.forget()
        self._more = True  # until the next transaction has looked

    def _fill(self, batch: list[Waiting], move: Callable[[], None]) -> list[Logged]:
        """Begins a transaction with the first messages of `batch`, and calls `move` if readings
        still have to be moved. Returns the results of these messages, in order.
        """
        started = time.perf_counter()
        self._log.begin()
        known = self._log.known([item.received.digest for item, _ in batch])
        results: list[Logged] = []
        try:
            for item, _ in batch:
                results.append(self._add(item, known))
                if time.perf_counter() - started > SECONDS_AT_ONCE:
                    break
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            # A bug must not stop the sender. The message itself is stored.
            self._undo(error)
            item, future = batch[len(results)]
            reason = Unusable(f"the gateway failed to process it: {type(error).__name__}")
            batch = [*batch[: len(results)], (Item(item.received, [reason]), future)]
            return self._fill(batch, move)
        try:
            if self._ward.pending:
                move()
            self._ward.flush()
            self._log.add_events()
            self._more = self._ward.pending
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            self._undo(error)
            return self._fill(batch[: len(results)], self._ward.give_up)
        self._log.flush()
        return results

    def _add(self, item: Item, known: dict[bytes, tuple[Numbers, bytes]]) -> Logged:
        earlier = known.get(item.received.digest)
        if earlier is not None:
            return Logged(*earlier)
        for content in item.content or ():
            if isinstance(content, Direct):
                self._ward.pass_on(content.message, content.data)
            else:
                self._ward.apply(content)
        self._ward.end_message()
        numbers = self._log.add_received(item.received)
        known[item.received.digest] = numbers, item.received.raw
        return Logged(numbers)

    def _undo(self, error: Exception) -> None:
        """Logs and counts a bug, and rolls the transaction back."""
        metrics.FAULTS.inc()
        log.exception("a message could not be processed", exc_info=_without_values(error))
        self._log.rollback()
        self._ward.forget()

    async def _prune(self) -> None:
        self._pruned = time.monotonic()
        try:
            self._log.begin()
            more = self._log.prune(days_ago(self._keep_days))
            await asyncio.to_thread(self._log.commit)
            self._log.reread()
            if more:
                self._pruned = 0.0
        except sqlite3.Error as error:
            log.error("old messages cannot be removed: %s", error)
            self._roll_back()


def _without_values(error: Exception) -> Exception:
    """Returns the error without its text, which may contain patient data."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
