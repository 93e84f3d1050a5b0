"""The keys, queues and job ids that buffer, tool and dashboard share in Redis."""

import re
from typing import Any, NamedTuple, Self, TypeVar

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

Client = TypeVar("Client", Redis, AsyncRedis)

# The buffer's position: JSON of `wire.batches.Position`. Written by the buffer, deleted by the tool
# if the database lacks messages.
POSITION = "icu:position"
# Hash `<stream>/<partition>` → last message in the database. Written by the tool.
COMMITTED = "icu:committed"
# The field of COMMITTED that exists once the tool has written the fields of all partitions.
COMPLETE = "since"
# Hash `<stream>` → number of partitions to which the positions in COMMITTED belong. Written by the
# tool and the buffer.
PARTITIONS = "icu:partitions"
# A list with one element after a batch was stored, so that the buffer need not look for it. Written
# by the tool, emptied by the buffer.
STORED = "icu:stored"
# The token of the one buffer that may queue messages; it expires. Written by the buffer.
LEASE = "icu:buffer"
# The models' declaration as JSON. Written by the tool.
DECLARATION = "icu:declaration"
# Prefix of one hash per stream: latency in milliseconds → number of messages. Written by the tool.
LATENCY = "icu:latency"
# The ids of all tools that may be running. Written by the tool.
TOOLS = "icu:tools"
# The time of the last backup, in seconds since 1970; without a backup, the time of the tool's first
# check. Written by backup and by the tool.
BACKUP = "icu:backup"
# Prefix of one counter per batch or message: how often its processing has started without ending.
# Written by the tool.
ATTEMPTS = "icu:attempts"
# Prefix of one key per queue: the error that makes its worker wait for the database. The key
# expires. Written by the tool.
OUTAGE = "icu:outage"

# The names of the two jobs, which the buffer and `python -m tool replay` queue.
STORE_JOB = "tool.worker.store"
REPLAY_JOB = "tool.worker.replay"
# Seconds that RQ keeps a failed job.
FAILURE_TTL = 30 * 24 * 3600


def queue_name(part: int) -> str:
    """The RQ queue of a partition."""
    return f"tool-{part}"


def batch_key(stream: str, part: int, last: int) -> str:
    """The key of a batch, which is a `wire.batches.Batch` in msgpack."""
    return f"icu:batch:{stream}-{part}-{last}"


def tool_key(tool: str) -> str:
    """The key that exists while the tool with this id runs; it expires."""
    return f"icu:tool:{tool}"


def lease_key(part: int) -> str:
    """The key that holds the id of the tool that works on a partition; it expires."""
    return f"icu:lease:{part}"


class JobId(NamedTuple):
    """The id of a job: `<stream>-<partition>-<last message>-<size>`.

    >>> JobId.parse("3f9a-1c2b-0-118-20")
    JobId(stream='3f9a-1c2b', part=0, last=118, size=20)
    """

    stream: str
    part: int
    last: int
    size: int

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Splits a job's id. Raises ValueError for the id of another program's job."""
        found = re.fullmatch(r"([\w-]+)-(\d+)-(\d+)-(\d+)", text, re.ASCII)
        if found is None:
            raise ValueError(text)
        stream, part, last, size = found.groups()
        return cls(stream, int(part), int(last), int(size))


def connection(url: str, password: str = "", **options: Any) -> Redis:
    """Returns a client that connects at its first command. A command that gets no answer for 5
    seconds is sent once more; after another 5 seconds it raises. options: arguments of
    `redis.Redis`, for example another timeout.
    """
    return _client(Redis, url, password, retry=Retry(NoBackoff(), 1), **options)


def async_connection(url: str, password: str = "", **options: Any) -> AsyncRedis:
    """The same for asyncio."""
    return _client(AsyncRedis, url, password, retry=AsyncRetry(NoBackoff(), 1), **options)


def _client(kind: type[Client], url: str, password: str, **options: Any) -> Client:
    options = {"socket_timeout": 5, "socket_connect_timeout": 5, **options}
    # redis-py would parse the path of a socket as a URL, but it may contain `#`, `?` or `%`.
    if url.startswith("unix://"):
        options.pop("socket_connect_timeout")
        path = url.removeprefix("unix://")
        return kind(unix_socket_path=path, password=password or None, **options)
    return kind.from_url(url, password=password or None, **options)
