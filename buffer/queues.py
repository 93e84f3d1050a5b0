"""Writes jobs and the buffer's position to Redis, in one script."""

import logging
import secrets
from typing import Any

import msgspec
from redis import Redis
from rq import Queue
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from wire.batches import MOST_PARTITIONS, Batch, Position
from wire.keys import (
    COMMITTED,
    COMPLETE,
    FAILURE_TTL,
    LEASE,
    PARTITIONS,
    POSITION,
    STORE_JOB,
    STORED,
    JobId,
    batch_key,
    queue_name,
)
from wire.leases import acquire, release, renew
from wire.scripts import run_if

LEASE_SECONDS = 5
# Maximum number of seconds to wait for a commit, because the buffer cannot end during a wait.
COMMIT_WAIT = 0.2
# Whether this buffer holds the lease, and the position is the one that it last read or wrote.
CURRENT = """
if redis.call('GET', KEYS[1]) ~= ARGV[2] or (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then
    return false
end
"""

log = logging.getLogger("buffer")


class Superseded(Exception):
    """Another buffer took over, or Redis lost its data. The position must be read again."""


class Queues:
    """The buffer's part of Redis: one RQ queue per partition, the lease and the position."""

    def __init__(self, redis: "Redis") -> None:
        self._redis: Any = redis
        self._queues: dict[int, Queue] = {}
        self._token = secrets.token_hex(8)
        self._stored: bytes | None = None

    def _queue(self, part: int) -> Queue:
        if part not in self._queues:
            self._queues[part] = Queue(
                queue_name(part), connection=self._redis, serializer=JSONSerializer
            )
        return self._queues[part]

    def take_lease(self) -> bool:
        """Acquires or renews the lease; returns whether this buffer holds it. The lease expires
        after LEASE_SECONDS.
        """
        lease = (self._redis, LEASE, self._token, LEASE_SECONDS)
        return renew(*lease) or acquire(*lease)

    def give_up_lease(self) -> None:
        release(self._redis, LEASE, self._token)

    def load(self) -> Position | None:
        """The position in Redis; None if it is missing or unreadable."""
        self._stored = self._redis.get(POSITION)
        if not self._stored:
            return None
        try:
            return msgspec.json.decode(self._stored, type=Position)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s in Redis is damaged, so it is ignored: %s", POSITION, error)
            return None

    def is_current(self) -> bool:
        """Whether Redis still has the position that this buffer last read or wrote."""
        return bool(self._redis.get(POSITION) == self._stored)

    def committed(self, stream: str) -> dict[int, int] | None:
        """The last stored message of each partition; None until the tool has reported them all.

        Until then, a partition that is not reported yet would seem to have no stored message.
        """
        known = self._redis.hgetall(COMMITTED)
        if COMPLETE.encode() not in known:
            return None
        prefix = f"{stream}/".encode()
        return {
            int(field.removeprefix(prefix)): int(seq)
            for field, seq in known.items()
            if field.startswith(prefix)
        }

    def partitions(self, stream: str) -> int | None:
        """The number of partitions to which the stored positions belong; None if it is unknown."""
        found = self._redis.hget(PARTITIONS, stream)
        valid = found is not None and found.isdigit() and 1 <= int(found) <= MOST_PARTITIONS
        return int(found) if valid else None

    def wait_for_commit(self) -> bool:
        """Waits until the tool has stored a batch; returns False after COMMIT_WAIT seconds."""
        return self._redis.blpop(STORED, COMMIT_WAIT) is not None

    def jobs(self, part: int) -> list[str]:
        """The ids of a partition's unfinished jobs, oldest first."""
        queue = self._queue(part)
        started = StartedJobRegistry(queue=queue).get_job_ids(cleanup=False)
        return [*started, *queue.intermediate_queue.get_job_ids(), *queue.get_job_ids()]

    def enqueue(self, position: Position, batches: list[Batch]) -> None:
        """Queues the batches and updates the position, atomically.

        Raises Superseded if this buffer does not hold the lease, or if the position in Redis is not
        the one that this buffer last read or wrote.
        """
        stored = msgspec.json.encode(position)
        pipe = self._redis.pipeline()  # collects the commands of RQ
        for batch in batches:
            # The batch has a key of its own, because RQ would encode an argument of the job again,
            # compress it, and repeat it in the job's description.
            key = batch_key(batch.stream, batch.part, batch.last)
            pipe.set(key, msgspec.msgpack.encode(batch))
            count = len(batch.messages)
            job = Queue.prepare_data(
                STORE_JOB,
                args=(key,),
                job_id=str(JobId(batch.stream, batch.part, batch.last, count)),
                description=f"{count} messages of stream {batch.stream}, part "
                f"{batch.part}, after {batch.after} to {batch.last}",
                timeout=-1,
                result_ttl=0,
                failure_ttl=FAILURE_TTL,
            )
            self._queue(batch.part).enqueue_many([job], pipeline=pipe)
        pipe.set(POSITION, stored)
        pipe.hset(PARTITIONS, position.stream, str(position.partitions))
        pipe.expire(LEASE, LEASE_SECONDS)
        commands = [words for words, _ in pipe.command_stack]
        known = self._token, self._stored or b""
        if not run_if(self._redis, CURRENT, (LEASE, POSITION), known, commands):
            raise Superseded
        self._stored = stored
