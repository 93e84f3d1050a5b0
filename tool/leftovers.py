"""Finds jobs that a worker took but did not finish, and queues them again.

A worker leaves such a job when it is killed, or when its connection times out while Redis answers.
"""

from typing import Any

from rq import Queue, get_current_job

from wire.keys import JobId


def unfinished(queue: Queue) -> list[str]:
    """Ids of unfinished jobs, oldest first, without this worker's current job.

    Removes jobs of other programs from RQ's lists.
    """
    redis: Any = queue.connection
    current = get_current_job()
    taken, registry = queue.intermediate_queue_key, queue.started_job_registry.key
    found = {}
    for entry in (*redis.lrange(taken, 0, -1), *redis.zrange(registry, 0, -1)):
        job_id = _job_id(entry)
        try:
            found[job_id] = JobId.parse(job_id)[:3]
        except ValueError:
            redis.lrem(taken, 0, entry)
            redis.zrem(registry, entry)
    if current:
        found.pop(current.id, None)
    return sorted(found, key=found.__getitem__)


def queue_again(queue: Queue, job_ids: list[str]) -> None:
    """Puts the jobs at the head of the queue; a job that Redis has lost is only removed from RQ's
    lists. Running a job twice has no further effect."""
    redis: Any = queue.connection
    registry = queue.started_job_registry.key
    started = redis.zrange(registry, 0, -1)
    for job_id in reversed(job_ids):
        job = queue.fetch_job(job_id)
        with redis.pipeline() as pipe:
            for entry in started:
                if _job_id(entry) == job_id:
                    pipe.zrem(registry, entry)
            if job is not None:
                pipe.lrem(queue.key, 0, job_id)
                pipe.lpush(queue.key, job_id)
            pipe.lrem(queue.intermediate_queue_key, 0, job_id)
            pipe.execute()


def _job_id(entry: bytes) -> str:
    """The job's id. In the registry, the id of the worker or of the execution follows it after a
    colon."""
    return entry.decode("utf-8", "replace").partition(":")[0]
