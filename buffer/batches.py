"""Messages on their way from the stream to the queues."""

import time
from collections import deque
from typing import NamedTuple
from zlib import crc32

import msgspec


class Batch(NamedTuple):
    """One partition's next messages: what becomes one job."""

    part: int
    after: int
    messages: list[tuple[int, float, bytes]]

    @property
    def last(self) -> int:
        return self.messages[-1][0]


class _Patient(msgspec.Struct):
    pat_id: int


_patient = msgspec.json.Decoder(_Patient)


class Partitioner:
    """Keeps all messages of a patient in one partition: `crc32(pat_id) % partitions`."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._known: dict[int, int] = {}

    def part(self, data: bytes) -> int:
        """A message without a readable patient goes to partition 0, where the tool rejects it."""
        try:
            pat_id = _patient.decode(data).pat_id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return 0
        part = self._known.get(pat_id)
        if part is None:
            if len(self._known) >= 1_000_000:
                self._known.clear()
            part = self._known[pat_id] = crc32(str(pat_id).encode()) % self.partitions
        return part


class Pending:
    """Messages that have arrived and are in no job yet, and the jobs that are not done yet.

    A partition with fewer than `EAGER` jobs under way gets its messages at once, whatever
    their number. While it is busy they gather, up to `batch_max`, so that batches grow with
    the load; after `PATIENCE` seconds they are queued all the same, to be safe in Redis.
    """

    EAGER = 2
    PATIENCE = 1.0

    def __init__(self, partitions: int, batch_max: int) -> None:
        self._batch_max = batch_max
        self._gathered: dict[int, list[tuple[int, float, bytes]]] = {
            part: [] for part in range(partitions)
        }
        self._under_way: dict[int, deque[tuple[int, int]]] = {}

    def add(self, part: int, seq: int, received: float, data: bytes) -> None:
        self._gathered[part].append((seq, received, data))

    def take_due(self, parts: dict[int, int]) -> list[Batch]:
        """Takes out what should be queued now. `parts`: each partition's last queued message."""
        now = time.time()
        batches = []
        for part, messages in self._gathered.items():
            if not messages:
                continue
            if (
                len(self._under_way.get(part, ())) < self.EAGER
                or len(messages) >= self._batch_max
                or now - messages[0][1] > self.PATIENCE
            ):
                batch = Batch(part, parts.get(part, 0), messages[: self._batch_max])
                del messages[: self._batch_max]
                self.under_way(part, batch.last, len(batch.messages))
                batches.append(batch)
        return batches

    def under_way(self, part: int, last: int, count: int) -> None:
        self._under_way.setdefault(part, deque()).append((last, count))

    def settle(self, committed: dict[int, int]) -> None:
        """Forgets the jobs whose messages are in the database."""
        for part, jobs in self._under_way.items():
            while jobs and jobs[0][0] <= committed.get(part, 0):
                jobs.popleft()

    def unsettled(self) -> dict[int, int]:
        """Partition → last message queued, where jobs are not done yet."""
        return {part: jobs[-1][0] for part, jobs in self._under_way.items() if jobs}

    @property
    def waiting(self) -> int:
        """Messages that are not in the database yet."""
        gathered = sum(map(len, self._gathered.values()))
        return gathered + sum(count for jobs in self._under_way.values() for _, count in jobs)

    @property
    def first_gathered(self) -> int | None:
        """The oldest message that is in no job yet."""
        return min(
            (messages[0][0] for messages in self._gathered.values() if messages), default=None
        )
