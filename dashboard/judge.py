"""Derives the state of the services and of the streams from the observations of each round."""

from datetime import datetime
from typing import Any

from dashboard.http_services import Health
from dashboard.queue_state import QueueState
from dashboard.reading import State
from dashboard.services import Board, Observation, messages_wait, rate_of
from dashboard.status import StreamStatus
from dashboard.stream_clock import StreamClock

# Seconds over which the speed of a replay is measured.
PACE_SECONDS = 10.0


class Judge:
    """Tracks how long nothing has been stored, and how fast the stream's clock runs."""

    def __init__(self) -> None:
        self.board = Board()
        self._observed: Observation | None = None
        self._same: dict[str, tuple[object, float]] = {}
        self._clocks: list[tuple[float, datetime]] = []

    def observe(
        self, at: float, state: State, error: str | None, queues: QueueState,
        hospital: Health, model_api: Health,
    ) -> None:  # fmt: skip
        """Records one round. error: the reason why the database could not be read."""
        current, stored = state.current, state.stored
        waits = messages_wait(queues, current, stored)
        self._observed = Observation(
            queues, hospital, model_api, current, stored, error,
            self._seconds("stored", (current, stored), at), self._seconds("waits", waits, at),
        )  # fmt: skip
        self.board.observe(self._observed, at)
        clock = state.clock
        if clock is not None:
            if self._clocks and clock.now < self._clocks[-1][1]:
                self._clocks.clear()
            self._clocks.append((at, clock.now))
            while at - self._clocks[0][0] > PACE_SECONDS:
                del self._clocks[0]

    def _seconds(self, name: str, value: object, at: float) -> float:
        """Seconds since `value` last changed."""
        before = self._same.get(name)
        if before is None or before[0] != value:
            self._same[name] = before = (value, at)
        return at - before[1]

    def status(
        self, stream: str | None, clock: StreamClock | None, state: State, error: str | None,
        age: float,
    ) -> StreamStatus:  # fmt: skip
        """The status of a stream. stream: None for the current one. clock: the stream's clock; None
        if it was not read. age: seconds since the stream's data was read."""
        observed, name = self._observed, stream or state.current
        answer: dict[str, Any] = observed.hospital.answer if observed else {}
        sent = name == state.current
        return StreamStatus(
            name,
            clock.now if clock else None,
            error,
            observed.stored_for if observed else 0.0,
            rate_of(answer),
            observed.ended if observed else False,
            age,
            sent,
            synthetic(name, answer),
            self._pace() if sent else 0.0,
        )

    def _pace(self) -> float:
        """Seconds of the stream's clock per second of real time."""
        if len(self._clocks) < 2:
            return 0.0
        (before, then), (at, now) = self._clocks[0], self._clocks[-1]
        return (now - then).total_seconds() / (at - before) if at > before else 0.0


def synthetic(stream: str | None, answer: dict[str, Any]) -> bool:
    """Whether the patients of a stream are synthetic, according to its name or its source."""
    if stream is None:
        return False
    if stream.startswith("synthetic-"):
        return True
    return answer.get("stream") == stream and answer.get("synthetic") is True
