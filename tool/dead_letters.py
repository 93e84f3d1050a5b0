"""Replays rejected messages, including dead letters, after the cause is fixed."""

import logging
import time

from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from tool.database import Database
from tool.partitions import number_in_use
from tool.withdrawals import UNKNOWN_READING
from wire.batches import partition_of
from wire.keys import FAILURE_TTL, REPLAY_JOB, JobId, queue_name
from wire.tables import RejectedRow

log = logging.getLogger("tool")


def replay(redis: Redis, database: Database, partitions: int, reason: str) -> tuple[int, int]:
    """Replays messages whose reason starts with `reason`, and the withdrawals of these messages;
    returns (replayed, still rejected).

    Each message becomes a job for the worker of its partition, which has the stay in memory. Waits
    until all jobs are done. partitions: the number of partitions if Redis does not have it.
    """
    rows = _with_withdrawals(database.rejected(reason), database)
    # If the worker of another partition stored a reading, the stay's own worker would not know it.
    partitions = number_in_use(redis) or partitions
    jobs = [_enqueue(redis, partitions, row) for row in rows]
    warn_at = time.monotonic() + 10
    while jobs := [job for job in jobs if _is_waiting(redis, job)]:
        if time.monotonic() > warn_at:
            log.warning("%d messages are waiting for the tool; is it running?", len(jobs))
            warn_at += 60
        time.sleep(0.2)
    # Counts only these messages, because others may be rejected meanwhile. Finds them by number,
    # because their reasons may have changed.
    left = len(_rejected(database).intersection((row.stream, row.seq) for row in rows))
    return len(rows) - left, left


def _with_withdrawals(rows: list[RejectedRow], database: Database) -> list[RejectedRow]:
    """Adds the rejected withdrawals of these messages, in the order of the stream. Otherwise a
    reading that was withdrawn while it was rejected would be stored for good."""
    found = {(row.stream, row.seq): row for row in rows}
    withdrawn = {(row.stream, UNKNOWN_READING.format(row.seq)) for row in rows}
    for row in database.rejected(UNKNOWN_READING.partition("{")[0]) if rows else ():
        if (row.stream, row.reason) in withdrawn:
            found[row.stream, row.seq] = row
    return [found[key] for key in sorted(found)]


def _rejected(database: Database) -> set[tuple[str, int]]:
    """The stream and the number of each rejected message."""
    with database.session.transaction() as cursor:
        cursor.execute("SELECT stream, seq FROM rejected")
        return {(stream, int(seq)) for stream, seq in cursor.fetchall()}


def _enqueue(redis: Redis, partitions: int, row: RejectedRow) -> str:
    part = partition_of(row.message, partitions)
    job_id = str(JobId(f"replay-{row.stream}", part, row.seq, 1))
    Queue(queue_name(part), connection=redis, serializer=JSONSerializer).enqueue(
        REPLAY_JOB,
        args=(row.stream, row.seq, row.message),
        job_id=job_id,
        description=f"message {row.seq} of stream {row.stream} again",
        job_timeout=-1,
        result_ttl=0,
        failure_ttl=FAILURE_TTL,
    )
    return job_id


def _is_waiting(redis: Redis, job_id: str) -> bool:
    status = redis.hget(Job.key_for(job_id), "status")
    return status is not None and status != JobStatus.FAILED.value.encode()
