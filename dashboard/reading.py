"""Reads the database once per round."""

from dataclasses import dataclass, field
from datetime import datetime

from dashboard.database import Database
from dashboard.http_services import Health, Models
from dashboard.pipeline import RejectedCount, safe_seq
from dashboard.queue_state import QueueState
from dashboard.rows import Position
from dashboard.shelf import Shelf
from dashboard.stream_clock import StreamClock, read_clock
from dashboard.views import Round


@dataclass(frozen=True)
class State:
    """The data of the last finished round.

    current: the stream that the source sends, and clock its clock; None if it was not read.
    streams: the stored streams, with their last commit. stored: the last stored message of the
    current stream.
    """

    current: str | None = None
    streams: dict[str, datetime] = field(default_factory=dict)
    clock: StreamClock | None = None
    models: Models = field(default_factory=Models)
    stored: int | None = None
    pending: int | None = None


class RoundReader:
    """Reads the data of all pages. It runs in the database's thread."""

    def __init__(self, database: Database, shelf: Shelf) -> None:
        self._database = database
        self._shelf = shelf
        self._parts: frozenset[int] = frozenset()
        self.rejected = RejectedCount()

    def read(
        self, at: float, before: State, queues: QueueState, hospital: Health, models: Models
    ) -> State:
        """Reads everything in one snapshot. at: the start of the round. Raises DatabaseDown."""
        # A page that is opened during the round has read its own data; without a clock from this
        # round it would become empty.
        views = list(self._shelf.views.values())
        with self._database.snapshot():
            by_stream: dict[str, list[Position]] = {}
            for position in self._database.positions():
                by_stream.setdefault(position.stream, []).append(position)
            streams = {
                stream: max(position.committed_at for position in positions)
                for stream, positions in by_stream.items()
            }
            current = _current(hospital, streams, before.current)
            shown = {current, *(view.key.stream for view in views)}
            clocks = self._clocks(shown, by_stream, queues)
            if models.champion is None:
                models = Models(self._database.champion(), error=models.error)
            positions = by_stream.get(current or "", [])
            pending = {
                stream: self._database.pending(stream) for stream in streams if stream in shown
            }
            if current and positions:
                self._count_rejected(current, positions, queues)
            seen = self._database.seen(models.champion) if models.champion else None
            this = Round(at, current, clocks, models.champion, seen, pending)
            for view in views:
                view.read(this)
            stored = max((position.seq for position in positions), default=None)
            return State(current, streams, this.clock(None), models, stored, this.waiting(None))

    def _clocks(
        self, shown: set[str | None], by_stream: dict[str, list[Position]], queues: QueueState
    ) -> dict[str, StreamClock]:
        found = {
            stream: read_clock(self._database, stream, positions, queues)
            for stream, positions in by_stream.items()
            if stream in shown
        }
        return {stream: clock for stream, clock in found.items() if clock is not None}

    def _count_rejected(self, stream: str, positions: list[Position], queues: QueueState) -> None:
        parts = frozenset(position.part for position in positions)
        if parts != self._parts:
            # The messages of a new partition may be older than those that are already counted.
            self._parts, self.rejected = parts, RejectedCount()
        same = queues.stream == stream
        safe = safe_seq(positions, queues.taken if same else None, queues.parts if same else {})
        self.rejected.read(self._database, stream, safe)


def _current(hospital: Health, streams: dict[str, datetime], before: str | None) -> str | None:
    """The stream that the source sends; if that is unknown, the previous current stream, or else
    the newest stored stream."""
    answer = hospital.answer.get("stream")
    if isinstance(answer, str) and answer:
        return answer
    if before is not None:
        return before
    return max(streams, key=lambda stream: streams[stream], default=None)
