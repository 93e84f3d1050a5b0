"""Acknowledges stored messages to the buffer, which reads again what is not acknowledged."""

import time
from collections.abc import Mapping

from redis.client import Pipeline, Redis

from tool.database import Database
from tool.times import now
from wire.batches import Batch
from wire.keys import COMMITTED, COMPLETE, LATENCY


def acknowledge(pipe: Pipeline, batch: Batch, position: int, received: Mapping[float, int]) -> None:
    """Writes a partition's position in the database, and how long its messages took.

    received: messages by the time when the buffer received them.
    """
    ended = time.time()
    pipe.hset(COMMITTED, f"{batch.stream}/{batch.part}", str(position))
    for begun, count in received.items():
        pipe.hincrby(f"{LATENCY}:{batch.stream}", milliseconds(ended - begun), count)


def acknowledge_all(redis: Redis, database: Database) -> None:
    """Writes the positions of all partitions again when Redis has lost them."""
    if redis.hexists(COMMITTED, COMPLETE):
        return
    with redis.pipeline() as pipe:
        for row in database.positions():
            # A position that a worker has written since is newer.
            pipe.hsetnx(COMMITTED, f"{row.stream}/{row.part}", str(row.seq))
        # Also for an empty database: the buffer waits for this field.
        pipe.hset(COMMITTED, COMPLETE, now())
        pipe.execute()


def milliseconds(seconds: float) -> str:
    """Whole milliseconds, of long times the first three digits.

    >>> milliseconds(0.0123), milliseconds(12.3456)
    ('12', '12300')
    """
    whole = max(0, round(seconds * 1e3))
    digits = len(str(whole))
    return str(round(whole, 3 - digits) if digits > 3 else whole)
