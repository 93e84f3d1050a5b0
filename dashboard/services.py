"""The state of each service, as the dashboard observes it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dashboard import formats
from dashboard.faults import fault
from dashboard.http_services import Health
from dashboard.queue_state import QueueState
from dashboard.topic import Content, Fields

# Seconds without a stored message, while messages wait, after which the tool counts as down.
STALL_SECONDS = 10.0
# Seconds after an outage of Redis in which the tool's workers register again without a restart.
REGISTER_SECONDS = 15.0
# The tool's note begins with this text while the tool waits for the database.
STUCK = "cannot store, because the database "
ROLES = {
    "hospital": "sends messages",
    "buffer": "queues messages in batches",
    "redis": "holds the queues",
    "tool": "stores messages and requests predictions",
    "database": "stores everything",
    "modelapi": "predicts",
}
WORDS = {"up": "up", "down": "down", "waiting": "waiting", "unknown": "not known"}


@dataclass
class Service:
    """The state of a service, and since when it is in this state. state: up, down, waiting (up, but
    idle or waiting for the database) or unknown.

    identities: the identities of the service's processes, by what they do. They are known only if
    the service stores them in Redis. Without them, a restart looks like a network failure or a
    pause, so `interruptions` counts all changes from down to up.
    """

    name: str
    role: str
    state: str = "unknown"
    note: str = ""
    since: float = 0.0
    interruptions: int = 0
    was_up: bool = False
    identities: dict[str, str] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)

    @property
    def restarts(self) -> int | None:
        """The number of observed restarts; None if the service has no identity."""
        return max(self.changes.values(), default=0) if self.identities else None

    def record(
        self,
        state: str,
        note: str,
        at: float,
        identities: Mapping[str, str] | None = None,
        registering: bool = False,
    ) -> None:
        """Records an observation at time `at`. Each changed identity counts as a restart, unless
        the part has moved to another host, or `registering` is set: then a running process may have
        got a new identity."""
        known, found = self.identities, dict(identities or {})
        self.identities = known | found
        for part, identity in found.items():
            changed = known.get(part, identity) != identity
            if changed and not registering and not _moved(known[part], identity, known, found):
                self.changes[part] += 1
        if self.was_up and self.state == "down" and state in ("up", "waiting"):
            self.interruptions += 1
        self.was_up = self.was_up or state in ("up", "waiting")
        if state != self.state:
            self.state, self.since = state, at
        self.note = note


@dataclass(frozen=True)
class Observation:
    """The observations of one round. stored: the last stored message of the current stream.
    stored_for: seconds since the last new message was stored. waits_for: seconds for which messages
    have been waiting.
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
        """Whether the buffer has queued messages that are not stored yet."""
        return messages_wait(self.queues, self.stream, self.stored)

    @property
    def ended(self) -> bool:
        """Whether the whole stream is stored. The stream of a live ward has no end."""
        stored, answer = self.stored or 0, self.hospital.answer
        if self.queues.ended and self.stream == self.queues.stream and not self.waits:
            return True
        if is_live(answer):
            return False
        total = answer.get("messages")
        return (
            isinstance(total, int) and answer.get("stream") == self.stream and stored >= total > 0
        )


def _moved(old: str, new: str, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a part has moved between two hosts that both have processes of the service: the old
    one still has some, or the new one had some before. Otherwise the new host replaces the old one,
    as after a new container. An identity begins with its host.

    >>> before = {"tool-0": "a 7", "tool-1": "a 8"}
    >>> _moved("a 8", "b 9", before, {"tool-0": "a 7", "tool-1": "b 9"})
    True
    >>> _moved("a 8", "b 9", before, {"tool-1": "b 9"}), _moved("a 8", "a 9", before, before)
    (False, False)
    """
    hosts_before, hosts_now = ({_host(each) for each in some.values()} for some in (before, now))
    return _host(old) != _host(new) and (_host(old) in hosts_now or _host(new) in hosts_before)


def _host(identity: str) -> str:
    return identity.partition(" ")[0]


class Board:
    """All services."""

    def __init__(self) -> None:
        self.services = {name: Service(name, role) for name, role in ROLES.items()}
        self._redis: str | None = None
        self._redis_at = -REGISTER_SECONDS

    def observe(self, observed: Observation, at: float) -> None:
        """Updates every service from one observation."""
        queues = observed.queues
        source = self.services["hospital"]
        if is_live(observed.hospital.answer):
            source.name, source.role = "gateway", "receives messages"
        self._observe("hospital", at, observed.hospital.error)
        self._observe("redis", at, queues.error, {"": queues.run_id} if queues.run_id else {})
        self._observe("database", at, observed.error)
        self._observe("modelapi", at, observed.model_api.error)
        if queues.error is not None:
            self._redis_at = at
            self.services["buffer"].record("unknown", "unknown while redis is down", at)
            self.services["tool"].record("unknown", "unknown while redis is down", at)
        else:
            error = None if queues.buffer else "is not running"
            idle = "the stream has ended" if observed.ended else ""
            identities = {"": queues.buffer} if queues.buffer else {}
            self._observe("buffer", at, error, identities, waits=idle)
            if queues.workers and queues.outage and observed.waits:
                error, idle = None, f"{STUCK}{fault(queues.outage)}"
            else:
                error = _tool_error(observed)
            registering = self._registering(queues, at)
            self._observe("tool", at, error, queues.workers, registering, waits=idle)

    def _observe(
        self,
        name: str,
        at: float,
        error: str | None,
        identities: Mapping[str, str] | None = None,
        registering: bool = False,
        waits: str = "",
    ) -> None:
        state = "down" if error else "waiting" if waits else "up"
        self.services[name].record(state, error or waits, at, identities, registering)

    def _registering(self, queues: QueueState, at: float) -> bool:
        """Whether Redis, or the dashboard itself, has recently been down or restarted."""
        if queues.run_id != self._redis:
            self._redis, self._redis_at = queues.run_id, at
        return at - self._redis_at < REGISTER_SECONDS

    def content(self, at: float) -> Content:
        """Formats the services as elements of the pipeline page."""
        return {
            f"service:{service.name}": {
                "name": service.name,
                "role": service.role,
                "state": service.state,
                "word": WORDS[service.state],
                "note": service.note,
                "since": formats.seconds(at - service.since) if service.since else "",
                **_counted(service),
            }
            for service in self.services.values()
        }


def _counted(service: Service) -> Fields:
    restarts = service.restarts
    if restarts is None:
        return {"counted": "interruptions", "count": formats.count(service.interruptions)}
    return {"counted": "restarts", "count": formats.count(restarts)}


def messages_wait(queues: QueueState, stream: str | None, stored: int | None) -> bool:
    """Whether the buffer has queued messages of this stream after its last stored message."""
    return queues.taken is not None and queues.stream == stream and (stored or 0) < queues.taken


def is_live(answer: Mapping[str, Any]) -> bool:
    """Whether the source is the gateway of a live ward, according to its answer to GET /health."""
    return "senders" in answer


def _tool_error(observed: Observation) -> str | None:
    if not observed.queues.workers:
        return "is not running"
    stalled = min(observed.waits_for, observed.stored_for) > STALL_SECONDS
    if observed.waits and observed.error is None and stalled:
        return "stores nothing, although messages wait"
    return None


def rate_of(answer: Mapping[str, Any]) -> float | None:
    """Messages per second, if the source reports it."""
    rate = answer.get("rate")
    return float(rate) if isinstance(rate, int | float) and not isinstance(rate, bool) else None
