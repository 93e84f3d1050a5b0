"""The jobs that a worker accepts.

RQ imports and calls whatever function a job names. Access to the queue must not be the right to run
programs, so a job here can only choose from a fixed table.
"""

import zlib
from collections.abc import Callable, Mapping

from redis.exceptions import ResponseError
from rq.exceptions import NoSuchJobError
from rq.job import Job

# A replayed message of 64 KiB is the largest argument; escapes make it six times as long.
DATA_MAX = 1 << 20

# Without callbacks, webhooks, dependencies and repeats, which also run or reach what the job names,
# and without a result or meta data to decode.
FIELDS = {
    *("created_at", "description", "ended_at", "enqueued_at", "failure_ttl", "last_heartbeat"),
    *("origin", "result_ttl", "started_at", "status", "worker_name"),
}


class ForeignJob(Exception):
    """The job is none of this worker's."""


class KnownJob(Job):
    """A job that calls a function of `functions`, and nothing else."""

    functions: Mapping[str, Callable[..., None]] = {}

    @property
    def func(self) -> Callable[..., None]:
        """Raises ForeignJob."""
        name = self.func_name
        if not isinstance(name, str) or name not in self.functions:
            raise ForeignJob(f"{str(name)[:100]!r} is not a job of this tool")
        return self.functions[name]

    def refresh(self) -> None:
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except ResponseError as error:  # the key holds something else
            raise NoSuchJobError(str(error)) from error

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Reads the job's hash in Redis. A damaged job is a foreign one when it is performed."""
        kept = {key: value for key, value in raw_data.items() if key.decode() in FIELDS}
        try:
            super().restore(kept | {b"data": b"-"})
            self.data = _unpacked(raw_data.get(b"data", b""))
        except (ValueError, OverflowError):
            super().restore({b"data": b"-"})
        self.timeout = -1


def _unpacked(data: bytes) -> bytes:
    """The job's data, cut at DATA_MAX."""
    try:
        return zlib.decompressobj().decompress(data, DATA_MAX)
    except zlib.error:
        return data[:DATA_MAX]
