"""The current time of a stream, according to its stored messages."""

from dataclasses import dataclass
from datetime import datetime

from dashboard.database import Database
from dashboard.queue_state import QueueState
from dashboard.rows import Position
from wire.batches import partition_of_patient


@dataclass(frozen=True)
class StreamClock:
    """A stream's newest stored time, and the time up to which each partition's vitals are stored. A
    value's age is relative to the time of its own partition. In a fast replay, vitals are written
    only every few seconds; without this rule, the delay would make values look old.
    """

    stream: str
    now: datetime
    parts: tuple[datetime, ...]

    def of(self, pat_id: int) -> datetime:
        """The time up to which the patient's vitals are stored."""
        if not self.parts:
            return self.now
        return self.parts[partition_of_patient(pat_id, len(self.parts))]


def read_clock(
    database: Database, stream: str, positions: list[Position], queues: QueueState
) -> StreamClock | None:
    """The clock of a stream with these positions; None while no reading is stored."""
    if not positions:
        return None
    now = database.newest(stream, max(position.seq for position in positions))
    if now is None:
        return None
    queued = queues.parts if queues.stream == stream else {}
    reached: dict[int, datetime] = {}
    for position in positions:
        # A complete partition has stored all its messages, however old the last one is.
        complete = position.part in queued and position.vitals_seq >= queued[position.part]
        at = now if complete else database.newest(stream, position.vitals_seq)
        reached[position.part] = at or now
    partitions = queues.partitions if queued else len(positions)
    # Positions of other partitions are from before a change of the number of partitions.
    parts = tuple(reached.get(part, now) for part in range(partitions))
    return StreamClock(stream, now, parts)
