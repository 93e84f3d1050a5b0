"""Reads the state in Redis: the buffer's position, the queues, the workers, the latencies."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from dashboard.faults import fault
from wire.batches import Position
from wire.keys import LATENCY, LEASE, OUTAGE, POSITION, queue_name

log = logging.getLogger("dashboard")


@dataclass(frozen=True)
class QueueState:
    """The state of Redis at one time. If `error` is set, Redis did not answer and all other members
    are empty. taken: the last message that the buffer queued. newest: the time of that message.
    workers: the process and the start of the worker of each queue. outage: the error because of
    which the tool is waiting for the database.
    """

    error: str | None = None
    run_id: str | None = None
    stream: str | None = None
    taken: int | None = None
    ended: bool = False
    parts: Mapping[int, int] = field(default_factory=dict)
    partitions: int = 0
    newest: datetime | None = None
    jobs: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)
    buffer: str | None = None
    workers: Mapping[str, str] = field(default_factory=dict)
    outage: str | None = None


class Queues:
    """Reads the keys that buffer, tool and RQ keep in Redis."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._failed = False

    async def read(self) -> QueueState:
        """The state; never raises when Redis is down."""
        try:
            state = await self._read()
        except (RedisError, OSError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            if not self._failed:
                log.warning("redis: %s", text)
            self._failed = True
            return QueueState(error=fault(text))
        if self._failed:
            log.info("redis: answers again")
        self._failed = False
        return state

    async def _read(self) -> QueueState:
        pipe = self._redis.pipeline(transaction=False)
        pipe.info("server")
        pipe.get(POSITION)
        pipe.get(LEASE)
        pipe.smembers("rq:queues")
        pipe.smembers("rq:workers")
        info, stored, lease, queues, workers = await pipe.execute()
        position = _position(stored)
        prefix = f"rq:queue:{queue_name(0)[:-1]}".encode()
        tools = sorted(name for name in queues if name.startswith(prefix))
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(f"{LATENCY}:{position.stream if position else None}")
        outages = [f"{OUTAGE}:{name.decode().rpartition(':')[2]}" for name in tools]
        pipe.mget(outages or OUTAGE)
        for name in tools:
            pipe.llen(name)
        for name in workers:
            pipe.hmget(name, "birth", "death", "queues", "hostname", "pid")
        latency, errors, *rest = await pipe.execute()
        return QueueState(
            run_id=str(info["run_id"]),
            stream=position.stream if position else None,
            taken=position.seq if position else None,
            ended=position.ended if position else False,
            parts=position.parts if position else {},
            partitions=position.partitions if position else 0,
            newest=_time(position.clock) if position else None,
            jobs=sum(rest[: len(tools)]),
            latency={int(bucket): int(n) for bucket, n in latency.items()},
            buffer=lease.decode() if lease else None,
            workers=_workers(rest[len(tools) :]),
            outage=next((error.decode(errors="replace") for error in errors if error), None),
        )


def _workers(records: Iterable[Sequence[bytes | None]]) -> dict[str, str]:
    """The newest worker of each queue. The record of a killed worker remains for a while."""
    found: dict[str, str] = {}
    for birth, death, *rest in sorted(records, key=lambda record: record[0] or b""):
        if birth and not death:
            queues, host, pid = (part.decode(errors="replace") if part else "" for part in rest)
            found[queues] = f"{host} {pid} {birth.decode(errors='replace')}"
    return found


def _position(stored: bytes | None) -> Position | None:
    """The buffer's position; None if Redis has none or it is unreadable."""
    try:
        return msgspec.json.decode(stored or b"", type=Position)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _time(clock: float | None) -> datetime | None:
    """A time of the stream's clock, without a time zone; None if it is unknown or out of range."""
    try:
        return None if clock is None else datetime.fromtimestamp(clock, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError):
        return None
