"""Judges the services and the streams by what a round saw."""

from datetime import datetime
from typing import Any

from dashboard.http_services import Health
from dashboard.queue_state import QueueState
from dashboard.reading import State
from dashboard.services import Board, Look, rate_of
from dashboard.status import Standing

# The pace of a replay is measured over this time.
PACE_SECONDS = 10.0


class Judge:
    """Remembers since when nothing moves, and how fast the stream's clock runs."""

    def __init__(self) -> None:
        self.board = Board()
        self._look: Look | None = None
        self._same: dict[str, tuple[object, float]] = {}
        self._clocks: list[tuple[float, datetime]] = []

    def see(
        self, at: float, state: State, error: str | None, queues: QueueState,
        hospital: Health, model_api: Health,
    ) -> None:  # fmt: skip
        """Takes in one round. `error`: why the database could not be read."""
        current, stored, taken = state.current, state.stored, queues.taken
        waits = taken is not None and queues.stream == current and (stored or 0) < taken
        self._look = Look(
            queues, hospital, model_api, current, stored, error,
            self._seconds("stored", (current, stored), at), self._seconds("waits", waits, at),
        )  # fmt: skip
        self.board.see(self._look, at)
        clock = state.clock(None)
        if clock is not None:
            if self._clocks and clock.now < self._clocks[-1][1]:
                self._clocks.clear()
            self._clocks.append((at, clock.now))
            while at - self._clocks[0][0] > PACE_SECONDS:
                del self._clocks[0]

    def _seconds(self, name: str, value: object, at: float) -> float:
        """For how many seconds `value` has been the same."""
        before = self._same.get(name)
        if before is None or before[0] != value:
            self._same[name] = before = (value, at)
        return at - before[1]

    def standing(
        self, stream: str | None, state: State, error: str | None, round_age: float
    ) -> Standing:
        """How a stream stands; `stream` None is the one that is sent."""
        look, name, clock = self._look, stream or state.current, state.clock(stream)
        said: dict[str, Any] = look.hospital.said if look else {}
        sent = name == state.current
        return Standing(
            name,
            clock.now if clock else None,
            error,
            look.stored_for if look else 0.0,
            rate_of(said),
            look.ended if look else False,
            round_age,
            sent,
            synthetic(name, said),
            self._pace() if sent else 0.0,
        )

    def _pace(self) -> float:
        """Seconds of the stream's clock in a second of real time."""
        if len(self._clocks) < 2:
            return 0.0
        (before, then), (at, now) = self._clocks[0], self._clocks[-1]
        return (now - then).total_seconds() / (at - before) if at > before else 0.0


def synthetic(stream: str | None, said: dict[str, Any]) -> bool:
    """Whether the patients of a stream are invented: by its name, or as its source says."""
    if stream is None:
        return False
    if stream.startswith("synthetic-"):
        return True
    return said.get("stream") == stream and said.get("synthetic") is True
