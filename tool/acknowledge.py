"""Acknowledges stored messages to the buffer, which reads unacknowledged messages again."""

import time
from collections.abc import Mapping

from redis.client import Pipeline, Redis

from tool.database import Database
from tool.times import now
from wire.batches import Batch
from wire.keys import COMMITTED, COMPLETE, LATENCY


def acknowledge(pipe: Pipeline, batch: Batch, position: int, received: Mapping[float, int]) -> None:
    """Writes a partition's stored position, and the latencies of its messages.

    received: the time when the buffer received messages → their number.
    """
    ended = time.time()
    pipe.hset(COMMITTED, f"{batch.stream}/{batch.part}", str(position))
    for begun, count in received.items():
        pipe.hincrby(f"{LATENCY}:{batch.stream}", milliseconds(ended - begun), count)


def acknowledge_all(redis: Redis, database: Database) -> None:
    """Writes the positions of all partitions if Redis has lost them."""
    if redis.hexists(COMMITTED, COMPLETE):
        return
    with redis.pipeline() as pipe:
        for row in database.positions():
            # A position that a worker has written meanwhile is newer.
            pipe.hsetnx(COMMITTED, f"{row.stream}/{row.part}", str(row.seq))
        # Also for an empty database, because the buffer waits for this field.
        pipe.hset(COMMITTED, COMPLETE, now())
        pipe.execute()


def milliseconds(seconds: float) -> str:
    """Whole milliseconds, rounded to three significant digits.

    >>> milliseconds(0.0123), milliseconds(12.3456)
    ('12', '12300')
    """
    whole = max(0, round(seconds * 1e3))
    digits = len(str(whole))
    return str(round(whole, 3 - digits) if digits > 3 else whole)
