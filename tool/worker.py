"""The RQ worker: one process per partition, which runs its jobs one by one.

The positions in the database determine which messages are new, so Redis may lose jobs or deliver
them twice. The buffer reads the messages of a lost job again, because they are not acknowledged.
"""

import logging
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import FrameType

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import WorkerStatus

from tool import metrics
from tool.data_handler import DataHandler
from tool.database import Database
from tool.jobs import DeadLetters, Jobs
from tool.known_job import KnownJob
from wire.keys import REPLAY_JOB, STORE_JOB, queue_name
from wire.scripts import Command

log = logging.getLogger("tool")

# Seconds between maintenance runs of an idle worker.
MAINTENANCE_EVERY = 5
# Minimum seconds between heartbeats. RQ alone would send five per job.
HEARTBEAT_EVERY = 1.0


class PartitionWorker(SimpleWorker):
    """A worker that does not fork, so that its database connection persists."""

    # RQ's default pause between retries grows to a minute.
    max_connection_wait_time = 2.0

    def __init__(
        self,
        queue: Queue,
        database: Database,
        handler: DataHandler,
        started: Callable[[], None],
    ) -> None:
        # A worker waits for a job for `worker_ttl` minus 15 s. With a short `worker_ttl` it soon
        # notices a dead connection, and `rq info` soon drops a killed worker.
        super().__init__(
            [queue],
            connection=queue.connection,
            job_class=KnownJob,
            serializer=JSONSerializer,
            exception_handlers=[_report_failure],
            worker_ttl=20,
            maintenance_interval=MAINTENANCE_EVERY,
        )
        self.log_job_description = False
        self.stopping = False
        self._registry = queue.started_job_registry.key
        self.jobs = Jobs(queue, database, handler, self.sleep)
        self._functions: Mapping[str, Callable[..., None]] = {
            STORE_JOB: self.jobs.store,
            REPLAY_JOB: self.jobs.replay,
        }
        self._started = started
        self._stopped_at = 0.0

    def execute_job(self, job: Job, queue: Queue) -> None:
        # RQ's method needs 27 round trips per job, most of them for dependents, results, repeats
        # and rate limits, which the jobs here do not have. RQ still handles failures.
        job.origin = queue.name
        entry = f"{job.id}:{self.name}"
        job.started_at = now()
        steps = (
            partial(self._begin, job, queue, entry),
            partial(self._finish, job, queue, entry, time.monotonic()),
        )
        if isinstance(job, KnownJob):  # always true, because of `job_class`
            job.functions = {
                name: partial(function, *steps) for name, function in self._functions.items()
            }
        self._state = WorkerStatus.BUSY  # from now on, a signal stops the worker after the job
        try:
            job.perform()
        except (RedisConnectionError, RedisTimeoutError):
            raise  # the job is still in Redis, and `work` queues it again
        except Exception:
            job.ended_at = now()
            self.handle_exception(job, *sys.exc_info())
            self.handle_job_failure(job, queue, exc_string=traceback.format_exc())
            with self.connection.pipeline() as pipe:
                # A job of another program fails before it begins.
                pipe.lrem(queue.intermediate_queue_key, 1, job.id)
                pipe.zrem(self._registry, entry)
                pipe.execute()
        else:
            self._state = WorkerStatus.IDLE

    def _begin(self, job: Job, queue: Queue, entry: str) -> list[Command]:
        """Moves the job from the intermediate queue to the registry of started jobs.

        The entry in the registry does not expire, because an outage of the database may be long.
        """
        return [
            ("ZADD", self._registry, "inf", entry),
            ("LREM", queue.intermediate_queue_key, 1, job.id),
            ("HSET", self.key, "state", WorkerStatus.BUSY),
            ("EXPIRE", self.key, self.get_heartbeat_ttl(job)),
        ]

    def _finish(self, job: Job, queue: Queue, entry: str, started: float) -> list[Command]:
        """Deletes a job that has succeeded, and counts it."""
        return [
            ("ZREM", self._registry, entry),
            ("DEL", job.key),
            ("HINCRBY", self.key, "successful_job_count", 1),
            ("HINCRBYFLOAT", self.key, "total_working_time", time.monotonic() - started),
            ("HSET", self.key, "state", WorkerStatus.IDLE),
        ]

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        # Before each wait for a job, RQ sets the state again in a round trip of its own.
        if state != self.get_state():
            super().set_state(state, pipeline)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        if pipeline is not None or self._seconds_since_heartbeat() >= HEARTBEAT_EVERY:
            super().heartbeat(timeout, pipeline)

    def check_for_suspension(self, burst: bool) -> None:
        if self._seconds_since_heartbeat() >= HEARTBEAT_EVERY:  # RQ's method sends a heartbeat
            super().check_for_suspension(burst)

    def _seconds_since_heartbeat(self) -> float:
        last = self.last_heartbeat
        return (now() - last).total_seconds() if last else math.inf

    def subscribe(self) -> None:
        # With RQ's own method, anybody who can publish a command could stop the worker.
        pass

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopping = True
        self._stopped_at = time.monotonic()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        # RQ would mark the job as failed. An unmarked job runs again after the next start.
        if time.monotonic() - self._stopped_at > 1:
            os._exit(1)

    def run_maintenance_tasks(self) -> None:
        # RQ itself would look for unfinished jobs only after twenty minutes.
        self.jobs.queue_leftovers()
        self.jobs.complete_vitals()
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        self._started()

    def sleep(self, seconds: float) -> None:
        """Pauses a job. If the worker is stopping, ends the process; the job runs again after the
        next start.
        """
        if self.stopping:
            with suppress(RedisError):
                self.jobs.attempts.excuse()
            os._exit(0)
        time.sleep(seconds)


def _report_failure(job: Job, kind: type[Exception], error: Exception, *_: object) -> None:
    # Each dead letter already has a log line.
    if not isinstance(error, DeadLetters):
        metrics.FAILED_JOBS.inc()
        log.error("job %s failed: %s: %s", job.id, kind.__name__, error)


def work(
    part: int,
    redis: Redis,
    database: Database,
    handler: DataHandler,
    started: Callable[[], None],
) -> None:
    """Runs the partition's jobs until a signal stops the worker. Waits while Redis is unavailable.
    started: called when the worker is ready for jobs.
    """
    queue = Queue(queue_name(part), connection=redis, serializer=JSONSerializer, job_class=KnownJob)
    failures = 0
    worker: PartitionWorker | None = None
    while True:
        try:
            worker = PartitionWorker(queue, database, handler, started)
            worker.jobs.queue_leftovers()
            if failures:
                metrics.RECONNECTS.labels("redis").inc()
                log.info("%s: redis: available again", queue.name)
            failures = 0
            worker.work(logging_level="CRITICAL")
            worker.jobs.complete_vitals()
        except RedisError as error:
            if not failures:
                log.warning("%s: redis: %s; waiting for it", queue.name, error)
            failures += 1
        if worker is not None and worker.stopping:
            return
        time.sleep(min(0.25 * 2 ** min(failures, 5), 5.0))
