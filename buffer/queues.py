"""The queues in Redis: jobs and the buffer's position, written in one transaction."""

import logging
import secrets
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from redis import Redis
from redis.exceptions import WatchError
from rq import Queue
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer

from buffer.batches import Batch

POSITION = "icu:position"
COMMITTED = "icu:committed"
COMPLETE = b"since"  # field: when the tool told of all partitions
LEASE = "icu:buffer"
LEASE_SECONDS = 5
# What a damaged position may ask for at most.
MOST_PARTITIONS = 10_000
# A job that failed is shown by `rq info` for so long.
FAILURE_TTL = 30 * 24 * 3600

log = logging.getLogger("buffer")


class Superseded(Exception):
    """Another buffer took over, or Redis forgot: the position must be read again."""


class Position(msgspec.Struct):
    """How far the buffer has read: the last message of the stream, and of each partition."""

    stream: str
    seq: Annotated[int, Meta(ge=0)]
    parts: dict[int, int]
    partitions: Annotated[int, Meta(ge=1, le=MOST_PARTITIONS)]
    ended: bool = False


class Queues:
    """One RQ queue a partition, `tool-0` and on."""

    def __init__(self, redis: "Redis") -> None:
        self._redis: Any = redis
        self._queues: dict[int, Queue] = {}
        self._token = secrets.token_hex(8).encode()
        self._stored: bytes | None = None

    def _queue(self, part: int) -> Queue:
        if part not in self._queues:
            name = f"tool-{part}"
            self._queues[part] = Queue(name, connection=self._redis, serializer=JSONSerializer)
        return self._queues[part]

    def take_lease(self) -> bool:
        """True while this is the one buffer that may queue. Call at least every few seconds."""
        if self._redis.get(LEASE) == self._token:
            self._redis.expire(LEASE, LEASE_SECONDS)
            return True
        return bool(self._redis.set(LEASE, self._token, nx=True, ex=LEASE_SECONDS))

    def give_up_lease(self) -> None:
        if self._redis.get(LEASE) == self._token:
            self._redis.delete(LEASE)

    def load(self) -> Position | None:
        """The stored position; None when Redis has none that can be read."""
        self._stored = self._redis.get(POSITION)
        if not self._stored:
            return None
        try:
            return msgspec.json.decode(self._stored, type=Position)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s in Redis is damaged: %s", POSITION, error)
            return None

    def committed(self, stream: str) -> dict[int, int] | None:
        """Each partition's last message in the database; None until the tool has said so.

        One worker's word is not enough: the others' partitions would seem to be empty.
        """
        known = self._redis.hgetall(COMMITTED)
        if COMPLETE not in known:
            return None
        prefix = f"{stream}/".encode()
        return {
            int(field.removeprefix(prefix)): int(seq)
            for field, seq in known.items()
            if field.startswith(prefix)
        }

    def jobs(self, part: int) -> list[str]:
        """Ids of the partition's jobs that are not done, oldest first."""
        queue = self._queue(part)
        started = StartedJobRegistry(queue=queue).get_job_ids(cleanup=False)
        return [*started, *queue.intermediate_queue.get_job_ids(), *queue.get_job_ids()]

    def enqueue(self, position: Position, batches: list[Batch]) -> None:
        """Queues the batches and moves the position, both or neither.

        Raises Superseded when the lease or the position in Redis is not this buffer's own.
        """
        stored = msgspec.json.encode(position)
        with self._redis.pipeline() as pipe:
            pipe.watch(LEASE, POSITION)
            if pipe.get(LEASE) != self._token or pipe.get(POSITION) != self._stored:
                raise Superseded
            pipe.multi()
            for batch in batches:
                # Not as an argument of the job: RQ would encode it again, compress it, and
                # write it out once more as the job's description.
                key = f"icu:batch:{position.stream}-{batch.part}-{batch.last}"
                count = len(batch.messages)
                pipe.set(
                    key,
                    msgspec.msgpack.encode(
                        (position.stream, batch.part, batch.after, batch.messages)
                    ),
                )
                job = Queue.prepare_data(
                    "tool.worker.store",
                    args=(key,),
                    # Part and last message first: they are read back after a restart.
                    job_id=f"{position.stream}-{batch.part}-{batch.last}-{count}",
                    description=f"{count} messages of stream {position.stream}, part "
                    f"{batch.part}, after {batch.after} to {batch.last}",
                    timeout=-1,
                    result_ttl=0,
                    failure_ttl=FAILURE_TTL,
                )
                self._queue(batch.part).enqueue_many([job], pipeline=pipe)
            pipe.set(POSITION, stored)
            pipe.expire(LEASE, LEASE_SECONDS)
            try:
                pipe.execute()
            except WatchError:
                raise Superseded from None
        self._stored = stored
