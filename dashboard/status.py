"""The fields of every page: the stream's clock, and its problems."""

from dataclasses import dataclass
from datetime import datetime

from dashboard import formats
from dashboard.notice import notice
from dashboard.services import Service
from dashboard.topic import Fields

# Values are not current after QUIET_SECONDS without a new message, or in a slow replay after the
# time that QUIET_MESSAGES messages take, if that is longer.
QUIET_SECONDS = 30.0
QUIET_MESSAGES = 5
# A page is late if its data is older than this number of seconds.
LATE_SECONDS = 5.0
# A replay faster than this multiple of real time gets a hint.
FAST = 60.0


@dataclass(frozen=True)
class StreamStatus:
    """The status of a stream.

    now: its newest stored time. quiet: seconds since the last new message was stored. age: seconds
    since the page's data was read. sent: whether the source is sending this stream. pace: seconds
    of the stream's clock per second of real time.
    """

    stream: str | None
    now: datetime | None
    error: str | None
    quiet: float = 0.0
    rate: float | None = None
    ended: bool = False
    age: float = 0.0
    sent: bool = True
    synthetic: bool = False
    pace: float = 0.0

    @property
    def quiet_limit(self) -> float:
        return max(QUIET_SECONDS, QUIET_MESSAGES / self.rate if self.rate else 0.0)

    @property
    def state(self) -> str:
        """One of live, ended, quiet, empty, earlier (another stream is current), late and lost."""
        if self.error is not None:
            return "lost"
        if self.age > LATE_SECONDS:
            return "late"
        if not self.sent:
            return "earlier"
        if self.now is None:
            return "empty"
        if self.ended:
            return "ended"
        return "quiet" if self.quiet > self.quiet_limit else "live"


WORDS = {
    "live": "Live",
    "ended": "End of stream",
    "earlier": "Not being sent",
    "quiet": "No new data",
    "empty": "No data yet",
    "late": "Not current",
    "lost": "Not current",
}


def status_fields(status: StreamStatus, services: list[Service], layout: str, at: float) -> Fields:
    """The status as fields. layout: a text that changes when a page must be reloaded. at: seconds
    of the poller's clock.
    """
    now = status.now
    fault = status.state == "live" and any(service.state == "down" for service in services)
    fast = status.state == "live" and status.pace > FAST
    return {
        "layout": layout,
        "state": status.state,
        "word": "Live, with a fault" if fault else WORDS[status.state],
        "fault": "yes" if fault else "",
        "day": formats.day(now) if now else "no time yet",
        "clock": formats.clock(now) if now else "--:--",
        "pace": "Replay: faster than real time" if fast else "",
        "stream": status.stream or "",
        "synthetic": "Synthetic ward: these patients are not real." if status.synthetic else "",
        "notice": notice(status.state, services, at),
    }
