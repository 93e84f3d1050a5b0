"""Which partitions are in use."""

from typing import Any

import msgspec
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from wire.batches import Position
from wire.keys import POSITION, queue_name


def number_in_use(redis: Redis) -> int | None:
    """The number of partitions, which differs from the setting until the buffer has finished the
    former partitions. None if Redis does not have it."""
    stored: Any = redis.get(POSITION)
    try:
        return msgspec.json.decode(stored or b"", type=Position).partitions
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def to_work_on(redis: Redis, number: int) -> list[int]:
    """The partitions of the setting `number` and those that the buffer still fills, in order, and
    others with unfinished jobs."""
    found = set(range(max(number, number_in_use(redis) or 0)))
    for queue in Queue.all(connection=redis, serializer=JSONSerializer):
        part = queue.name.rpartition("-")[2]
        if part.isdecimal() and queue.name == queue_name(int(part)) and int(part) not in found:
            # Redis keeps the names of empty queues for ever.
            lists = queue.key, queue.intermediate_queue_key, queue.started_job_registry.key
            if redis.exists(*lists):
                found.add(int(part))
    return sorted(found)
