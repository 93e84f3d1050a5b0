"""What a page must say about itself: the stream's clock, and what is missing."""

from dataclasses import dataclass
from datetime import datetime

from dashboard import formats
from dashboard.pipeline import Service
from dashboard.topic import Fields

# Without a new message for so long, readings are no longer shown as current. A slow replay
# has a few messages' time.
QUIET_SECONDS = 30.0
QUIET_MESSAGES = 5


@dataclass(frozen=True)
class Standing:
    """How the stream stands. `quiet`: seconds since the last new message was stored."""

    now: datetime | None
    database_error: str | None
    quiet: float
    rate: float | None
    ended: bool

    @property
    def patience(self) -> float:
        return max(QUIET_SECONDS, QUIET_MESSAGES / self.rate if self.rate else 0.0)

    @property
    def state(self) -> str:
        """live, ended, quiet, empty (nothing stored yet) or lost (no database)."""
        if self.database_error is not None:
            return "lost"
        if self.now is None:
            return "empty"
        if self.ended:
            return "ended"
        return "quiet" if self.quiet > self.patience else "live"


WORDS = {
    "live": "Live",
    "ended": "End of stream",
    "quiet": "Standing still",
    "empty": "No data yet",
    "lost": "Not current",
}


def status_fields(standing: Standing, services: list[Service], layout: str) -> Fields:
    """The fields that every page has. `layout` changes when a page must be loaded anew.

    `notice` holds no running number: a screen reader says it again whenever it changes.
    """
    state = standing.state
    down = {service.name: service for service in services if service.state == "down"}
    return {
        "layout": layout,
        "state": state,
        "word": WORDS[state],
        "day": formats.day(standing.now) if standing.now else "no time yet",
        "clock": formats.clock(standing.now) if standing.now else "--:--",
        "notice": _notice(standing, down),
    }


def _notice(standing: Standing, down: dict[str, Service]) -> str:
    said: list[str] = []
    state = standing.state
    if state == "lost":
        said.append(
            f"The database cannot be read: {standing.database_error}. "
            "What stands here is the last that was known; it is not current."
        )
    elif state == "empty":
        said.append("No reading is stored yet.")
    elif state == "quiet":
        said.append("No new message is being stored. What stands here is not current.")
    elif state == "ended":
        said.append("The stream has ended: this is how the ward stood at its last message.")
    if "modelapi" in down:
        said.append("The model API does not answer: risks are not being renewed.")
    others = [name for name in down if name not in ("modelapi", "database")]
    if others:
        said.append(f"Down: {', '.join(others)}.")
    return " ".join(said)
