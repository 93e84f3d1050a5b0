"""Acknowledges stored messages to the buffer, which reads unacknowledged messages again."""

import logging
import time
from collections.abc import Iterable, Mapping
from operator import attrgetter

from redis import Redis

from tool.database import Database
from tool.times import now
from wire.batches import Batch
from wire.keys import COMMITTED, COMPLETE, LATENCY, PARTITIONS, POSITION, STORED
from wire.scripts import Command, run_if

log = logging.getLogger("tool")

# Seconds between two comparisons of the positions in Redis with those in the database.
COMPARE_SECONDS = 10.0

# Moves the position forward, wakes the buffer and counts the latencies, unless Redis already has a
# later position.
FORWARD = """
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or 0)
if known and known > tonumber(ARGV[3]) then return false end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('DEL', KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[2])
for i = 4, ARGV[1] + 1, 2 do redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1]) end
"""


def acknowledge(
    redis: Redis,
    batch: Batch,
    position: int,
    received: Mapping[float, int],
    commands: Iterable[Command],
) -> bool:
    """Moves a partition's acknowledged position forward, counts the messages' latencies, and runs
    the commands. Does nothing and returns False if Redis already has a later position. Either
    another tool has overtaken this one, or the position in Redis is wrong. In both cases, call
    `correct`.

    received: for each time of receipt by the buffer, the number of messages.
    """
    ended = time.time()
    latencies: list[str | int] = []
    for begun, count in received.items():
        latencies += milliseconds(ended - begun), count
    keys = COMMITTED, STORED, f"{LATENCY}:{batch.stream}"
    return run_if(redis, FORWARD, keys, (_field(batch), position, *latencies), commands)


def correct(redis: Redis, batch: Batch, position: int) -> None:
    """Sets a partition's acknowledged position to the stored position, even if the stored one is
    earlier."""
    redis.hset(COMMITTED, _field(batch), str(position))


class Acknowledgements:
    """Keeps the acknowledged positions in Redis equal to the positions in the database."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self._redis = redis
        self._database = database
        self._compare_at = 0.0

    def copy(self) -> None:
        """Copies the positions of all partitions to Redis if Redis has lost them or has a later
        one, which is checked at the first call and then every COMPARE_SECONDS. Redis has later ones
        if the tool has been given another database, or an older copy: then the buffer must read the
        stream again.
        """
        if time.monotonic() < self._compare_at and self._redis.hexists(COMMITTED, COMPLETE):
            return
        # Redis is read first: each of its positions was in the database before.
        known: dict[bytes, bytes] = self._redis.hgetall(COMMITTED)  # type: ignore[assignment]
        complete = known.pop(COMPLETE.encode(), None) is not None
        positions = self._database.positions()
        stored = {f"{row.stream}/{row.part}".encode(): row.seq for row in positions}
        # Bytes, because damaged fields need not be texts.
        later = [
            name for name, seq in known.items() if seq.isdigit() and int(seq) > stored.get(name, 0)
        ]
        with self._redis.pipeline() as pipe:
            if later:
                log.warning(
                    "Redis has later positions than the database, which is another one or an older "
                    "copy; the buffer reads the missing messages again"
                )
                pipe.hdel(COMMITTED, *later)
                pipe.delete(POSITION, PARTITIONS)
            for name, seq in stored.items():
                # HSETNX, because a position that a worker has written meanwhile is newer.
                pipe.hsetnx(COMMITTED, name, str(seq))
            # The newest positions first, because their number of partitions counts.
            for row in sorted(positions, key=attrgetter("seq"), reverse=True):
                if row.partitions:
                    pipe.hsetnx(PARTITIONS, row.stream, str(row.partitions))
            if not complete:
                # Written even if the database is empty, because the buffer waits for this field.
                pipe.hset(COMMITTED, COMPLETE, now())
            pipe.execute()
        self._compare_at = time.monotonic() + COMPARE_SECONDS


def _field(batch: Batch) -> str:
    return f"{batch.stream}/{batch.part}"


def milliseconds(seconds: float) -> str:
    """Converts seconds to whole milliseconds, rounded to three significant digits.

    >>> milliseconds(0.0123), milliseconds(12.3456)
    ('12', '12300')
    """
    whole = max(0, round(seconds * 1e3))
    digits = len(str(whole))
    return str(round(whole, 3 - digits) if digits > 3 else whole)
