"""The fields that every page has: the stream's clock, and what is wrong."""

from dataclasses import dataclass
from datetime import datetime

from dashboard import formats
from dashboard.services import Service
from dashboard.topic import Fields

# Without a new message for this time, values are no longer shown as current. A slow replay has
# the time of a few messages.
QUIET_SECONDS = 30.0
QUIET_MESSAGES = 5
# The page is not current when the last finished round is older.
LATE_SECONDS = 5.0
# A replay that is this much faster than real time is named.
FAST = 60.0


@dataclass(frozen=True)
class Standing:
    """How a stream stands.

    now: its newest stored time. quiet: seconds since the last new message was stored. round_age:
    seconds since the dashboard's last finished round. sent: the source sends this stream now.
    pace: seconds of the stream's clock in a second of real time.
    """

    stream: str | None
    now: datetime | None
    error: str | None
    quiet: float = 0.0
    rate: float | None = None
    ended: bool = False
    round_age: float = 0.0
    sent: bool = True
    synthetic: bool = False
    pace: float = 0.0

    @property
    def patience(self) -> float:
        return max(QUIET_SECONDS, QUIET_MESSAGES / self.rate if self.rate else 0.0)

    @property
    def state(self) -> str:
        """live, ended, quiet, empty, earlier (another stream is sent), late, or lost."""
        if self.error is not None:
            return "lost"
        if self.round_age > LATE_SECONDS:
            return "late"
        if not self.sent:
            return "earlier"
        if self.now is None:
            return "empty"
        if self.ended:
            return "ended"
        return "quiet" if self.quiet > self.patience else "live"


WORDS = {
    "live": "Live",
    "ended": "End of stream",
    "earlier": "Not being sent",
    "quiet": "Standing still",
    "empty": "No data yet",
    "late": "Not current",
    "lost": "Not current",
}
SENTENCES = {
    "late": "The dashboard has not finished reading for more than 5 seconds. "
    "These values are the last known ones, and not current.",
    "earlier": "This stream is not being sent now: its values are the last ones stored.",
    "quiet": "No new message is being stored. These values are not current.",
    "ended": "The stream has ended: this is the ward at its last message.",
}


def status_fields(standing: Standing, services: list[Service], layout: str) -> Fields:
    """`layout` changes when a page must be loaded again.

    `notice` holds no running number: a screen reader reads it again whenever it changes.
    """
    now = standing.now
    fast = standing.state == "live" and standing.pace > FAST
    return {
        "layout": layout,
        "state": standing.state,
        "word": WORDS[standing.state],
        "day": formats.day(now) if now else "no time yet",
        "clock": formats.clock(now) if now else "--:--",
        "pace": "Replay: faster than shown" if fast else "",
        "stream": standing.stream or "",
        "synthetic": "Synthetic ward: these patients are invented." if standing.synthetic else "",
        "notice": _notice(standing, services),
    }


def _notice(standing: Standing, services: list[Service]) -> str:
    state = standing.state
    down = {service.name: service for service in services if service.state == "down"}
    sentences: list[str] = []
    if state == "lost":
        sentences.append(
            f"The database cannot be read: {standing.error}. "
            "These values are the last known ones, and not current."
        )
    elif state == "empty":
        sentences.append(_empty(standing, services))
    elif state in SENTENCES:
        sentences.append(SENTENCES[state])
    if "modelapi" in down:
        sentences.append("The model API does not answer: risks are not being renewed.")
    sentences += [
        f"{name.capitalize()} is down: {service.note.rstrip('.')}."
        for name, service in down.items()
        if name not in ("modelapi", "database")
    ]
    return " ".join(sentences)


def _empty(standing: Standing, services: list[Service]) -> str:
    hospital = next((each for each in services if each.name == "hospital"), None)
    if hospital and hospital.note == "preparing":
        return "Hospital is preparing the stream; the first readings follow in a moment."
    return "No reading is stored yet. The first ones appear here by themselves."
