"""Tracks messages from arrival to commit."""

import time
from collections import deque

from wire.batches import Batch, RawMessage


class Pending:
    """Messages that are not in a job yet, and jobs whose messages are not all stored yet.

    If a partition has no unfinished job, its messages are queued at once. Otherwise they are
    collected, so that batches grow with the load. A job that is queued behind another one waits for
    it, and messages that arrive meanwhile wait for both. So a second job is only queued if it has
    at least `AHEAD` messages: then the worker is the bottleneck and must not wait for the buffer.
    Messages that fill a batch, or have waited for `PATIENCE` seconds, are queued in any case,
    because they are safer in Redis.
    """

    AHEAD = 500
    PATIENCE = 1.0

    def __init__(self, stream: str, partitions: int, batch_max: int) -> None:
        self._stream = stream
        self._batch_max = batch_max
        self._gathered: dict[int, list[RawMessage]] = {part: [] for part in range(partitions)}
        self._under_way: dict[int, deque[tuple[int, int]]] = {}

    def add(self, part: int, message: RawMessage) -> None:
        self._gathered[part].append(message)

    def due(self) -> bool:
        """Whether there are messages that must be queued now."""
        now = time.time()
        return any(self._is_due(part, messages, now) for part, messages in self._gathered.items())

    def _is_due(self, part: int, messages: list[RawMessage], now: float) -> bool:
        if not messages:
            return False
        unfinished = len(self._under_way.get(part, ()))
        return (
            not unfinished
            or (unfinished == 1 and len(messages) >= self.AHEAD)
            or len(messages) >= self._batch_max
            or now - messages[0].received > self.PATIENCE
        )

    def take_due(self, parts: dict[int, int]) -> list[Batch]:
        """Removes and returns the batches that must be queued now. parts: the last queued message
        of each partition.
        """
        now = time.time()
        batches = []
        for part, messages in self._gathered.items():
            if self._is_due(part, messages, now):
                due = messages[: self._batch_max]
                batch = Batch(self._stream, part, parts.get(part, 0), due, len(self._gathered))
                del messages[: self._batch_max]
                self.under_way(part, batch.last, len(due))
                batches.append(batch)
        return batches

    def under_way(self, part: int, last: int, count: int) -> None:
        """Adds a job of `count` messages that ends with message `last`."""
        self._under_way.setdefault(part, deque()).append((last, count))

    def settle(self, committed: dict[int, int]) -> None:
        """Removes the jobs whose messages are all stored.

        committed: the last stored message of each partition.
        """
        for part, jobs in self._under_way.items():
            while jobs and jobs[0][0] <= committed.get(part, 0):
                jobs.popleft()

    def unsettled(self) -> dict[int, int]:
        """The last queued message of each partition that has unfinished jobs."""
        return {part: jobs[-1][0] for part, jobs in self._under_way.items() if jobs}

    @property
    def waiting(self) -> int:
        """The number of messages that are not stored yet."""
        gathered = sum(map(len, self._gathered.values()))
        return gathered + sum(count for jobs in self._under_way.values() for _, count in jobs)

    @property
    def first_gathered(self) -> int | None:
        """The number of the oldest message that is not in a job yet; None if there is none."""
        return min((some[0].seq for some in self._gathered.values() if some), default=None)
