"""Gives rejected messages to the workers again, after what was wrong has been mended."""

import logging
import time
from zlib import crc32

import msgspec
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from tool.database import Database

log = logging.getLogger("tool")

FAILURE_TTL = 30 * 24 * 3600


class _Patient(msgspec.Struct):
    pat_id: int


def replay(redis: Redis, database: Database, partitions: int, reason: str) -> tuple[int, int]:
    """(replayed, still rejected) of the messages whose reason begins with `reason`.

    Each becomes a job of its patient's partition, for the worker that has the stay in memory.
    Waits until all are done.
    """
    jobs = [
        _enqueue(redis, partitions, row.stream, row.seq, row.message)
        for row in database.rejected(reason)
    ]
    asked = len(jobs)
    warn_at = time.monotonic() + 10
    while jobs := [job for job in jobs if _is_waiting(redis, job)]:
        if time.monotonic() > warn_at:
            log.warning("%d messages wait for the tool; is it running?", len(jobs))
            warn_at += 60
        time.sleep(0.2)
    left = len(database.rejected(reason))
    return asked - left, left


def _enqueue(redis: Redis, partitions: int, stream: str, seq: int, message: str) -> str:
    part = part_of(message, partitions)
    job_id = f"replay-{stream}-{part}-{seq}-1"
    Queue(f"tool-{part}", connection=redis, serializer=JSONSerializer).enqueue(
        "tool.worker.replay",
        args=(stream, seq, message),
        job_id=job_id,
        description=f"message {seq} of stream {stream} again",
        job_timeout=-1,
        result_ttl=0,
        failure_ttl=FAILURE_TTL,
    )
    return job_id


def part_of(message: str, partitions: int) -> int:
    """The partition of the message's patient, as the buffer chooses it."""
    try:
        pat_id = msgspec.json.decode(message, type=_Patient).pat_id
    except (msgspec.DecodeError, RecursionError):
        return 0
    return crc32(str(pat_id).encode()) % partitions


def _is_waiting(redis: Redis, job_id: str) -> bool:
    status = redis.hget(Job.key_for(job_id), "status")
    return status is not None and status != JobStatus.FAILED.value.encode()
