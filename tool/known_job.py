"""The jobs that a worker accepts.

RQ imports and calls any function that a job names. A program with access to the queue must not be
able to run code, so a job can only select a function from a fixed table.
"""

import zlib
from collections.abc import Callable, Mapping

from redis.exceptions import ResponseError
from rq.exceptions import NoSuchJobError
from rq.job import Job

# The largest argument is a replayed message of 64 KiB. JSON escapes can make it six times longer.
DATA_MAX = 1 << 20

# The fields of a job that are read, besides its data. Callbacks, webhooks, dependencies and repeats
# are not read, because they could also run code. Results and metadata are not read, because RQ
# would decode them.
FIELDS = {
    *("created_at", "description", "ended_at", "enqueued_at", "failure_ttl", "last_heartbeat"),
    *("origin", "result_ttl", "started_at", "status", "worker_name"),
}


class ForeignJob(Exception):
    """The job does not belong to this tool."""


class KnownJob(Job):
    """A job that can only call a function of `functions`."""

    functions: Mapping[str, Callable[..., None]] = {}

    @property
    def func(self) -> Callable[..., None]:
        """The function that runs the job. Raises ForeignJob."""
        name = self.func_name
        if not isinstance(name, str) or name not in self.functions:
            raise ForeignJob(f"{str(name)[:100]!r} is not a job of this tool")
        return self.functions[name]

    def refresh(self) -> None:
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except ResponseError as error:  # the key is not a hash
            raise NoSuchJobError(str(error)) from error

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Reads the job's hash in Redis. A damaged job raises ForeignJob when it runs."""
        kept = {key: value for key, value in raw_data.items() if key.decode() in FIELDS}
        try:
            super().restore(kept | {b"data": b"-"})
            self.data = _unpacked(raw_data.get(b"data", b""))
        except (ValueError, OverflowError):
            super().restore({b"data": b"-"})
        self.timeout = -1


def _unpacked(data: bytes) -> bytes:
    """The job's data, decompressed if it is compressed, and truncated at DATA_MAX."""
    try:
        return zlib.decompressobj().decompress(data, DATA_MAX)
    except zlib.error:
        return data[:DATA_MAX]
