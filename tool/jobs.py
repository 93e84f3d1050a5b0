"""The two jobs of a worker: storing a batch, and replaying a rejected message."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from rq import Queue
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from tool import metrics
from tool.acknowledge import acknowledge, correct
from tool.data_handler import DataHandler, Early
from tool.database import Database, Moved, Outdated, Unavailable
from tool.declarations import Subscriber
from tool.leftovers import queue_again, unfinished
from tool.poison import CRASHES, Attempts, Poison
from tool.result import Result
from wire.batches import Batch
from wire.keys import DECLARATION, OUTAGE
from wire.scripts import Command, run

log = logging.getLogger("tool")

# Seconds that a batch waits while another worker processes the batches before it.
EARLY_WAIT = 3.0
# Seconds after which the reported error of an outage expires; longer than one attempt takes.
OUTAGE_SECONDS = 30

T = TypeVar("T")
# Returns RQ's commands for the start or the end of a job.
Step = Callable[[], list[Command]]


class DeadLetters(Exception):
    """Some messages of the job are dead letters, so RQ must list it as failed."""


class Jobs:
    """Runs the jobs of one queue. Each job sends RQ's commands, `begin` and `finish`, together with
    its own, because each round trip to Redis delays the messages that wait for the job.

    sleep: a function that pauses, and may end the process instead of returning.
    """

    def __init__(
        self, queue: Queue, database: Database, handler: DataHandler, sleep: Callable[[float], None]
    ) -> None:
        self.attempts = Attempts(queue.connection)
        self._queue = queue
        self._redis: Any = queue.connection
        self._database = database
        self._handler = handler
        self._sleep = sleep
        self._declaration = Subscriber(queue.connection, database)

    def store(self, begin: Step, finish: Step, key: str) -> None:
        """Stores the batch that Redis has at `key`, acknowledges it and deletes the key. Drops an
        early batch; the buffer sends it again. Raises DeadLetters after the commit if messages of
        the batch became dead letters.
        """
        read = [("MGET", DECLARATION, key), ("LLEN", self._queue.key)]
        commands = [*begin(), *read, *self.attempts.begin(key)]
        *_, (declared, data), waiting, attempt, _ = run(self._redis, commands)
        if data is None:
            log.warning("%s is missing in Redis; the buffer will read it again", key)
            run(self._redis, finish())
            self.complete_vitals()
            return
        self._declare(declared)
        batch = msgspec.msgpack.decode(data, type=Batch)
        started = time.monotonic()
        self._handler.backlog = waiting > 0
        try:
            store = self._store if attempt <= CRASHES else self._store_one_by_one
            result = store(batch)
        except Early as early:
            log.warning(
                "%s; the buffer will send the batch after message %d again", early, batch.after
            )
            result = Result(self._position(batch))
            correct(self._redis, batch, result.position)
        else:
            _report(key, batch, result, time.monotonic() - started)
        commands = [self.attempts.end(key), ("DEL", key)]
        if not result.dead_letters:
            commands += finish()
        if not acknowledge(self._redis, batch, result.position, result.received, commands):
            correct(self._redis, batch, self._position(batch))
            run(self._redis, commands)
        if result.dead_letters:
            raise DeadLetters(f"{result.dead_letters} of {len(batch.messages)} messages")

    def replay(self, begin: Step, finish: Step, stream: str, seq: int, message: str) -> None:
        """Replays a rejected message. If its processing fails again, raises the error; after
        CRASHES crashes of the worker, raises Poison."""
        message_id = f"{stream}-{seq}"
        commands = [*begin(), ("GET", DECLARATION), *self.attempts.begin(message_id)]
        *_, declared, attempt, _ = run(self._redis, commands)
        self._declare(declared)
        try:
            if attempt > CRASHES:
                raise Poison
            result = self._retry(partial(self._handler.replay, stream, seq, message.encode()))
        except Moved:
            log.info("message %s is no longer in table rejected", message_id)
        except Exception:
            run(self._redis, [self.attempts.end(message_id)])
            raise
        else:
            metrics.READINGS.inc(result.stored)
            stored, extra = result.stored, {"message_id": message_id}
            log.info("message %s replayed; readings stored: %d", message_id, stored, extra=extra)
        run(self._redis, [self.attempts.end(message_id), *finish()])

    def complete_vitals(self) -> None:
        """Brings table `vitals` up to date, unless jobs are waiting."""
        if self._queue.is_empty():
            try:
                self._handler.complete()
            except (Moved, Unavailable) as error:
                log.debug("vitals: %s; retrying later", error)

    def queue_leftovers(self) -> None:
        """Queues again the jobs that a worker took but did not finish."""
        left = unfinished(self._queue)
        queue_again(self._queue, left)
        if left:
            metrics.LEFTOVERS.inc(len(left))
            log.info("%s: queued %d unfinished jobs again", self._queue.name, len(left))

    def _position(self, batch: Batch) -> int:
        """The last stored message of the batch's partition."""
        return self._retry(partial(self._database.position, batch.stream, batch.part))

    def _store(self, batch: Batch) -> Result:
        return self._in_turn(batch.part, partial(self._handler.handle, batch))

    def _store_one_by_one(self, batch: Batch) -> Result:
        """Stores a batch that has crashed the worker, message by message, to find the message at
        fault.
        """
        result = Result(batch.after)
        for raw in batch.messages:
            name = f"{batch.stream}-{raw.seq}"
            attempt, _ = run(self._redis, self.attempts.begin(name))
            single = replace(batch, after=result.position, messages=[raw])
            if attempt <= CRASHES:
                result += self._store(single)
            else:
                reject = partial(self._handler.reject, single, Poison())
                result += self._in_turn(batch.part, reject)
            run(self._redis, [self.attempts.end(name)])
        return result

    def _in_turn(self, part: int, store: Callable[[], Result]) -> Result:
        """Calls `store` until it succeeds. Raises Early if earlier batches are missing and no other
        worker stores them within EARLY_WAIT."""
        deadline: float | None = None
        while True:
            try:
                return self._retry(store)
            except Moved:
                log.info("partition %d: another worker was faster", part)
            except Early:
                if not unfinished(self._queue):
                    raise
                deadline = deadline or time.monotonic() + EARLY_WAIT
                if time.monotonic() > deadline:
                    self.queue_leftovers()
                    raise
                self._sleep(0.1)

    def _retry(self, action: Callable[[], T]) -> T:
        """Waits for the first declaration, then runs the action and retries it until the database
        is available. Raises SystemExit if the tables are newer than this program."""
        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_exponential(multiplier=0.25, max=5),
            sleep=self._sleep,
            before_sleep=self._report_outage,
            reraise=True,
        )
        result: T = retrying(self._when_declared, action)
        if retrying.statistics["attempt_number"] > 1:
            self._redis.delete(f"{OUTAGE}:{self._queue.name}")
            metrics.RECONNECTS.labels("database").inc()
            log.info("database: available again")
        return result

    def _report_outage(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Outdated):
            log.error("database: %s; stopping", error)
            raise SystemExit(1)  # the job stays in the queue for a newer tool
        if state.attempt_number == 1:
            log.warning("database: %s; waiting for it", error)
        self._redis.set(f"{OUTAGE}:{self._queue.name}", str(error), ex=OUTAGE_SECONDS)
        # If the worker is killed while it waits, the message is not the cause.
        self.attempts.excuse()

    def _when_declared(self, action: Callable[[], T]) -> T:
        if not self._declaration.ready:
            declaration = self._declaration.changed()
            if declaration is None:
                log.info("waiting for the first declaration of the model API")
            while declaration is None:
                self._sleep(0.5)
                declaration = self._declaration.changed()
            self._handler.declare(declaration)
        return action()

    def _declare(self, declared: bytes | None) -> None:
        """Applies the declaration in Redis if it has changed."""
        if (declaration := self._declaration.read(declared)) is not None:
            self._handler.declare(declaration)


def _report(key: str, batch: Batch, result: Result, seconds: float) -> None:
    metrics.stored(batch.part, batch.messages[-1].data, result, seconds)
    log.debug(
        "stream %s, partition %d up to %d: %d readings, %d predicted, %d pending, "
        "%d rejected, %.0f ms",
        batch.stream,
        batch.part,
        result.position,
        result.stored,
        result.predicted,
        result.waiting,
        result.rejected,
        seconds * 1e3,
        extra={"batch_id": key.rpartition(":")[2]},
    )
