"""The messages between their arrival and their commit."""

import time
from collections import deque

from wire.batches import Batch, RawMessage


class Pending:
    """Messages that are in no job yet, and the jobs that are not in the database yet.

    A partition with fewer than `EAGER` jobs under way gets its messages at once. While it is
    busy its messages gather, up to `batch_max`, so that batches grow with the load; after
    `PATIENCE` seconds they are queued all the same, to be safe in Redis.
    """

    EAGER = 2
    PATIENCE = 1.0

    def __init__(self, stream: str, partitions: int, batch_max: int) -> None:
        self._stream = stream
        self._batch_max = batch_max
        self._gathered: dict[int, list[RawMessage]] = {part: [] for part in range(partitions)}
        self._under_way: dict[int, deque[tuple[int, int]]] = {}

    def add(self, part: int, message: RawMessage) -> None:
        self._gathered[part].append(message)

    def take_due(self, parts: dict[int, int]) -> list[Batch]:
        """Takes out the batches to queue now. `parts`: each partition's last queued message."""
        now = time.time()
        batches = []
        for part, messages in self._gathered.items():
            if not messages:
                continue
            if (
                len(self._under_way.get(part, ())) < self.EAGER
                or len(messages) >= self._batch_max
                or now - messages[0].received > self.PATIENCE
            ):
                due = messages[: self._batch_max]
                batch = Batch(self._stream, part, parts.get(part, 0), due)
                del messages[: self._batch_max]
                self.under_way(part, batch.last, len(due))
                batches.append(batch)
        return batches

    def under_way(self, part: int, last: int, count: int) -> None:
        """Counts a job of `count` messages that ends with message `last`."""
        self._under_way.setdefault(part, deque()).append((last, count))

    def settle(self, committed: dict[int, int]) -> None:
        """Removes the jobs that are in the database."""
        for part, jobs in self._under_way.items():
            while jobs and jobs[0][0] <= committed.get(part, 0):
                jobs.popleft()

    def unsettled(self) -> dict[int, int]:
        """Partition → last message queued, where jobs are under way."""
        return {part: jobs[-1][0] for part, jobs in self._under_way.items() if jobs}

    @property
    def waiting(self) -> int:
        """The number of messages that are not in the database yet."""
        gathered = sum(map(len, self._gathered.values()))
        return gathered + sum(count for jobs in self._under_way.values() for _, count in jobs)

    @property
    def first_gathered(self) -> int | None:
        """The oldest message that is in no job yet."""
        return min((some[0].seq for some in self._gathered.values() if some), default=None)
