"""The state of each service, as seen from outside."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dashboard import formats
from dashboard.http_services import Health
from dashboard.queue_state import QueueState
from dashboard.topic import Content

# The tool is down when messages wait and none is stored for this time.
STALL_SECONDS = 10.0
ROLES = {
    "hospital": "sends the messages",
    "buffer": "batches them",
    "redis": "holds the queues",
    "tool": "stores them and asks for predictions",
    "database": "keeps everything",
    "modelapi": "predicts",
}
WORDS = {"up": "up", "down": "down", "waiting": "waiting", "unknown": "not known"}


@dataclass
class Service:
    """Whether a service is up, since when, and how often it was seen to restart.

    state: up, down, waiting (up, with nothing to do) or unknown.
    """

    name: str
    role: str
    state: str = "unknown"
    note: str = ""
    since: float = 0.0
    restarts: int = 0
    identity: str | None = None
    was_up: bool = False

    def seen(self, state: str, note: str, at: float, identity: str | None = None) -> None:
        """Notes a look at time `at`. A change of `identity` is a restart."""
        if identity is not None:
            if self.identity not in (None, identity):
                self.restarts += 1
            self.identity = identity
        elif self.identity is None and self.was_up and self.state == "down" and state == "up":
            self.restarts += 1
        self.was_up = self.was_up or state == "up"
        if state != self.state:
            self.state, self.since = state, at
        self.note = note


@dataclass(frozen=True)
class Look:
    """What one round saw. stored: the last stored message of the stream that is sent.

    stored_for, waits_for: seconds without a new one, and seconds in which messages waited.
    """

    queues: QueueState
    hospital: Health
    model_api: Health
    stream: str | None
    stored: int | None
    error: str | None
    stored_for: float
    waits_for: float

    @property
    def waits(self) -> bool:
        """Whether messages are queued and not stored."""
        taken = self.queues.taken
        return (
            taken is not None and self.queues.stream == self.stream and (self.stored or 0) < taken
        )

    @property
    def ended(self) -> bool:
        """Whether the stream is stored to its end."""
        stored, said = self.stored or 0, self.hospital.said
        if self.queues.ended and self.stream == self.queues.stream and not self.waits:
            return True
        total = said.get("messages")
        return isinstance(total, int) and said.get("stream") == self.stream and stored >= total > 0


class Board:
    """All services."""

    def __init__(self) -> None:
        self.services = {name: Service(name, role) for name, role in ROLES.items()}

    def see(self, look: Look, at: float) -> None:
        """Judges every service by one look."""
        queues = look.queues
        self._see("hospital", at, look.hospital.error)
        self._see("redis", at, queues.error, queues.run_id)
        self._see("database", at, look.error)
        self._see("modelapi", at, look.model_api.error)
        if queues.error is not None:
            self.services["buffer"].seen("unknown", "is seen through redis only", at)
            self.services["tool"].seen("unknown", "is seen through redis only", at)
        else:
            error = None if queues.buffer else "holds no lease in redis"
            self._see("buffer", at, error, queues.buffer)
            identity = " ".join(sorted(queues.workers)) or None
            self._see("tool", at, _tool_error(look), identity)
        if look.ended:
            for name in ("buffer", "tool"):
                if self.services[name].state == "up":
                    self.services[name].seen("waiting", "the stream has ended", at)

    def _see(self, name: str, at: float, error: str | None, identity: str | None = None) -> None:
        self.services[name].seen("down" if error else "up", error or "", at, identity)

    def content(self, at: float) -> Content:
        """The services as elements of the pipeline page."""
        return {
            f"service:{service.name}": {
                "name": service.name,
                "role": service.role,
                "state": service.state,
                "word": WORDS[service.state],
                "note": service.note,
                "since": formats.seconds(at - service.since) if service.since else "",
                "restarts": str(service.restarts),
            }
            for service in self.services.values()
        }


def _tool_error(look: Look) -> str | None:
    if not look.queues.workers:
        return "no worker is registered"
    stalled = min(look.waits_for, look.stored_for) > STALL_SECONDS
    if look.waits and look.error is None and stalled:
        return "messages wait and none is stored"
    return None


def rate_of(said: Mapping[str, Any]) -> float | None:
    """Messages a second, where the source says it."""
    rate = said.get("rate")
    return float(rate) if isinstance(rate, int | float) and not isinstance(rate, bool) else None
