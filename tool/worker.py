"""An RQ worker for one partition: takes jobs off its queue, one after the other.

Whatever Redis loses or hands out twice, the positions in the database decide what is new.
A job that is lost is read again by the buffer, which sees in `icu:committed` that its
messages did not arrive.
"""

import logging
import multiprocessing
import os
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from tool import metrics
from tool.data_handler import Batch, DataHandler, Early, Outcome
from tool.database import Database, Moved, Unavailable
from tool.model_client import Declaration

log = logging.getLogger("tool")

COMMITTED = "icu:committed"
COMPLETE = "since"  # its field that is there once all partitions were told
DECLARATION = "icu:declaration"
LATENCY = "icu:latency"
ATTEMPTS = "icu:attempts"

# How long a batch waits for those before it while another worker has them in hand.
EARLY_WAIT = 3.0
# Seconds between looks, when idle, for jobs that were taken and are in nobody's hands.
LEFTOVERS_EVERY = 5
# How often a job may kill its worker before its messages are taken one by one, and how often
# one of these may then, before it is set aside.
DEATHS = 3
DEADLY = "the tool was killed each time it processed this message"
A_DAY = 24 * 3600


class SetAside(Exception):
    """Messages of this job could not be processed; they are in `rejected`, with the reason."""


class Deadly(Exception):
    """Whoever processes this message dies of it."""


class PartitionWorker(SimpleWorker):
    """A worker that does not fork, so that its database connection lives on."""

    # RQ's own pause between tries grows to a minute.
    max_connection_wait_time = 2.0

    def __init__(self, queue: Queue, database: Database, handler: DataHandler) -> None:
        # A short life-time: `rq info` forgets a killed worker soon, and a dead connection is
        # noticed soon, because the worker waits for a job for 15 s less than this.
        super().__init__(
            [queue],
            connection=queue.connection,
            serializer=JSONSerializer,
            worker_ttl=20,
            maintenance_interval=LEFTOVERS_EVERY,
        )
        self.log_job_description = False
        self.stopping = False
        self._stop_asked = 0.0
        self._redis: Any = queue.connection
        self._database = database
        self._handler = handler
        self._declaration: bytes | None = None
        self._attempts: list[str] = []

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True
        self._stop_asked = time.monotonic()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        # RQ would count the job as failed; like this it is taken up at the next start.
        if time.monotonic() - self._stop_asked > 1:
            os._exit(1)

    def run_maintenance_tasks(self) -> None:
        # RQ waits for twenty minutes before it looks after these.
        self.take_up_leftovers()
        self.complete()
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def leftovers(self) -> set[str]:
        """Ids of the jobs that were taken by somebody and are not done; not this worker's own.

        A killed worker leaves them, and a connection that Redis served after the worker had
        given it up.
        """
        queue = self.queues[0]
        started = queue.started_job_registry.get_job_ids(cleanup=False)
        taken = {*started, *queue.intermediate_queue.get_job_ids()}
        return taken - {self.get_current_job_id()}

    def take_up_leftovers(self) -> None:
        """Puts them back at the head of the queue. A job that is done twice changes nothing."""
        queue = self.queues[0]
        registry = queue.started_job_registry
        left = self.leftovers()
        for job_id in sorted(left, key=_last, reverse=True):
            job = queue.fetch_job(job_id)
            with self._redis.pipeline() as pipe:
                if job is not None:
                    registry.remove_executions(job, pipeline=pipe)
                    pipe.lrem(queue.key, 0, job_id)
                    pipe.lpush(queue.key, job_id)
                pipe.lrem(queue.intermediate_queue_key, 0, job_id)
                pipe.execute()
        if left:
            metrics.LEFTOVERS.inc(len(left))
            log.info("%s: took up %d jobs that were under way", queue.name, len(left))

    def complete(self) -> None:
        """Brings table `vitals` up to date, unless there are jobs to do."""
        if self.queues[0].is_empty():
            try:
                self._handler.complete()
            except (Moved, Unavailable) as error:
                log.debug("vitals: %s", error)  # at the next batch, or the next look

    def store(self, key: str) -> None:
        """Stores the batch that lies in Redis at `key`."""
        attempt = f"{ATTEMPTS}:{key}"
        with self._redis.pipeline() as pipe:
            pipe.get(key).incr(attempt).expire(attempt, A_DAY).llen(self.queues[0].key)
            data, deaths, _, waiting = pipe.execute()
        self._attempts = [attempt]
        if data is None:
            log.warning("%s is gone from Redis; the buffer reads it again", key)
            self.complete()
            return
        batch = msgspec.msgpack.decode(data, type=Batch)
        started = time.monotonic()
        try:
            outcome = (
                self._persist(batch, more=waiting > 0)
                if deaths <= DEATHS
                else self._one_by_one(batch)
            )
        except Early as early:
            log.warning("%s; the batch after %d comes again", early, batch.after)
            self._say(batch, self._database.position(batch.stream, batch.part), key)
            return
        seconds = time.monotonic() - started
        metrics.stored(batch.part, batch.messages[-1][2], outcome, seconds)
        self._say(batch, outcome.position, key, outcome)
        log.info(
            "stream %s part %d to %d: %d stored, %d predicted, %d waiting, %d rejected in %.0f ms",
            batch.stream,
            batch.part,
            outcome.position,
            outcome.stored,
            outcome.predicted,
            outcome.waiting,
            outcome.rejected,
            seconds * 1e3,
            extra={"batch_id": key.rpartition(":")[2]},
        )
        if outcome.set_aside:
            raise SetAside(f"{outcome.set_aside} of {len(batch.messages)} messages are set aside")

    def replay(self, stream: str, seq: int, message: str) -> None:
        """Takes a rejected message up again. Raises what it still fails of."""
        failures = 0
        while True:
            try:
                self._learn()
                outcome = self._handler.replay(stream, seq, message.encode())
                break
            except Moved:
                log.info("message %s-%d is not rejected any more", stream, seq)
                return
            except Unavailable as error:
                failures = self._wait_for_database(error, failures)
        metrics.READINGS.inc(outcome.stored)
        message_id = f"{stream}-{seq}"
        log.info(
            "message %s again: %d stored",
            message_id,
            outcome.stored,
            extra={"message_id": message_id},
        )

    def _one_by_one(self, batch: Batch) -> Outcome:
        """Finds out which message kills, and sets it aside."""
        after, outcome = batch.after, Outcome(batch.after)
        for message in batch.messages:
            attempt = f"{ATTEMPTS}:{batch.stream}-{message[0]}"
            with self._redis.pipeline() as pipe:
                deaths, _ = pipe.incr(attempt).expire(attempt, A_DAY).execute()
            self._attempts.append(attempt)
            single = Batch(batch.stream, batch.part, after, [message])
            outcome += self._persist(single, deadly=deaths > DEATHS)
            self._redis.delete(attempt)
            after = message[0]
        return outcome

    def _persist(self, batch: Batch, more: bool = False, deadly: bool = False) -> Outcome:
        failures = 0
        early_until: float | None = None
        while True:
            try:
                self._learn()
                outcome = self._handler.handle(batch, Deadly(DEADLY) if deadly else None, more)
                if failures:
                    metrics.RECONNECTS.labels("database").inc()
                    log.info("database: back")
                return outcome
            except Moved:
                log.info("part %d: another worker was faster", batch.part)
            except Early:
                if not self.leftovers():
                    raise
                early_until = early_until or time.monotonic() + EARLY_WAIT
                if time.monotonic() > early_until:
                    self.take_up_leftovers()
                    raise
                self._pause(0.1)
            except Unavailable as error:
                failures = self._wait_for_database(error, failures)

    def _wait_for_database(self, error: Unavailable, failures: int) -> int:
        if not failures:
            log.warning("database: %s; waiting for it", error)
            # Who is killed while it waits was not killed by a message.
            if self._attempts:
                self._redis.delete(*self._attempts)
        self._pause(min(0.25 * 2**failures, 5.0))
        return min(failures + 1, 8)

    def _learn(self) -> None:
        """Takes up the declaration that the attendant keeps in Redis, or last time's."""
        told = False
        while True:
            declared = self._redis.get(DECLARATION)
            if declared is None and self._declaration is None:
                declared = stored_declaration(self._database)
            if declared is None and self._declaration is None:
                if not told:
                    log.info("waiting for the model API to say what it needs (this once)")
                told = True
                self._pause(0.5)
                continue
            if declared is not None and declared != self._declaration:
                try:
                    self._handler.declare(msgspec.json.decode(declared, type=Declaration))
                except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                    log.warning("%s in Redis is damaged: %s", DECLARATION, error)
                    self._redis.delete(DECLARATION)  # the attendant writes it again
                    continue
                self._declaration = declared
            return

    def _say(self, batch: Batch, position: int, key: str, outcome: Outcome | None = None) -> None:
        """Tells the buffer what is in the database, and how long it took to get there."""
        now = time.time()
        with self._redis.pipeline() as pipe:
            pipe.hset(COMMITTED, f"{batch.stream}/{batch.part}", str(position))
            pipe.delete(key, f"{ATTEMPTS}:{key}")
            for received, count in outcome.received.items() if outcome else ():
                pipe.hincrby(f"{LATENCY}:{batch.stream}", bucket(now - received), count)
            pipe.execute()

    def _pause(self, seconds: float) -> None:
        # The job stays where it is in Redis, for the next start to take up.
        if self.stopping:
            # Not the messages' doing, so it does not count against them.
            with suppress(RedisError):
                self._redis.delete(*self._attempts or [ATTEMPTS])
            os._exit(0)
        time.sleep(seconds)


def bucket(seconds: float) -> str:
    """The time in whole milliseconds, of long ones the first three digits.

    >>> bucket(0.0123), bucket(12.3456)
    ('12', '12300')
    """
    milliseconds = max(0, round(seconds * 1e3))
    digits = len(str(milliseconds))
    return str(round(milliseconds, 3 - digits) if digits > 3 else milliseconds)


def stored_declaration(database: Database) -> bytes | None:
    """The declaration as last written to table `models`."""
    roles: dict[str, list[dict[str, object]]] = {}
    for row in database.models():
        declared = {
            "model": row.model,
            "version": row.version,
            "features": msgspec.json.decode(row.features),
        }
        roles.setdefault(row.role, []).append(declared)
    if "champion" not in roles:
        return None
    return msgspec.json.encode(
        {"champion": roles["champion"][0], "shadows": roles.get("shadow", [])}
    )


def _last(job_id: str) -> tuple[str, int]:
    stream, _, last, _ = job_id.rsplit("-", 3)
    return stream, int(last)


_worker: PartitionWorker | None = None


def store(key: str) -> None:
    """The job that the buffer queues. Runs in the worker's own process."""
    if _worker is None:
        raise RuntimeError("tool.worker.store runs in a worker started by `python -m tool`")
    _worker.store(key)


def replay(stream: str, seq: int, message: str) -> None:
    """The job that `python -m tool replay` queues. Runs in the worker's own process."""
    if _worker is None:
        raise RuntimeError("tool.worker.replay runs in a worker started by `python -m tool`")
    _worker.replay(stream, seq, message)


def work(part: int, redis: Redis, database: Database, handler: DataHandler) -> None:
    """Works on the partition's queue until told to stop, through failures of Redis."""
    global _worker
    queue = Queue(f"tool-{part}", connection=redis, serializer=JSONSerializer)
    failures = 0
    while True:
        try:
            _worker = PartitionWorker(queue, database, handler)
            _worker.take_up_leftovers()
            if failures:
                metrics.RECONNECTS.labels("redis").inc()
                log.info("tool-%d: redis is back", part)
            failures = 0
            _worker.work(logging_level="CRITICAL")
            _worker.complete()
        except RedisError as error:
            if not failures:
                log.warning("tool-%d: redis: %s; waiting for it", part, error)
            failures += 1
        if _worker is not None and _worker.stopping:
            return
        time.sleep(min(0.25 * 2 ** min(failures, 5), 5.0))


def follow_parent() -> None:
    """Ends this process when its parent is gone, however that happened."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
