"""The gateway's metrics, for GET /metrics."""

from collections import Counter as Tally
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from gateway.log import Received
from wire.disk import disk_of

# Omits the unused `_created` series of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Maximum number of label values, because senders choose them; further ones become `other`.
SENDERS_MAX = 200
CODES_MAX = 500

MESSAGES = Counter(
    "icu_gateway_messages_total",
    "Messages stored, or known already. result: new, known (a repeat) or unread (type not used)",
    ["sender", "protocol", "result"],
)
LAST = Gauge(
    "icu_gateway_last_message_timestamp_seconds",
    "Time at which a sender's last message was received",
    ["sender"],
)
CLOCK = Gauge(
    "icu_gateway_clock_difference_seconds",
    "Seconds that a sender's clock is ahead of the gateway's",
    ["sender"],
)
NACKS = Counter(
    "icu_gateway_nacks_total", "Negative acknowledgements, by HL7 code or HTTP status", ["code"]
)
UNKNOWN = Counter(
    "icu_gateway_unknown_codes_total",
    "Values whose code is neither in codes.csv nor in CODES, stored under the code's own name",
    ["system", "code"],
)
CONNECTIONS = Gauge(
    "icu_gateway_connections", "Open MLLP connections, without those that wait to be read"
)
SUBSCRIBERS = Gauge("icu_gateway_subscribers", "Connected subscribers")
EVENTS = Gauge(
    "icu_gateway_stream_messages",
    "Messages of the stream so far, including those that are no longer kept",
)
DISK_FAILURES = Counter("icu_gateway_disk_failures_total", "Failed transactions of the log")
FAULTS = Counter(
    "icu_gateway_faults_total", "Errors of the gateway itself while it processed messages"
)
COMMIT = Histogram(
    "icu_gateway_commit_seconds",
    "Seconds until a transaction of the log is on disk",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
GROUP = Histogram(
    "icu_gateway_group_messages",
    "Messages in one transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
)
_free = Gauge("icu_gateway_disk_free_bytes", "Free space on the disk that holds the log")
_size = Gauge("icu_gateway_disk_size_bytes", "Size of the disk that holds the log")

# Counts that are added to MESSAGES when the metrics are read, because each increment of MESSAGES
# takes a lock.
_messages: Tally[tuple[str, str, str]] = Tally()
_senders: dict[str, dict[str, float | int | str | None]] = {}
_codes: set[tuple[str, str]] = set()


def logged(message: Received, known: bool, unread: bool) -> None:
    """Counts a message that was stored, or that was known already."""
    name = _sender(message.sender)
    result = "known" if known else "unread" if unread else "new"
    _messages[name, message.kind.partition(" ")[0], result] += 1
    sender = _senders[name]
    sender["last"] = message.at
    sender["messages"] = int(sender["messages"] or 0) + 1


def clock_difference(sender: str, seconds: float) -> None:
    """Records how far a sender's clock is ahead of the gateway's."""
    _senders[_sender(sender)]["clock_difference"] = round(seconds, 3)


def unknown_code(system: str, code: str) -> None:
    """Counts a value whose code is unknown."""
    if (system, code) not in _codes:
        if len(_codes) >= CODES_MAX:
            system, code = "other", "other"
        _codes.add((system, code))
    UNKNOWN.labels(system, code).inc()


def senders() -> list[dict[str, float | int | str | None]]:
    """The figures of each sender since the start, for GET /health."""
    return list(_senders.values())


def unknown_codes() -> dict[str, int]:
    """The number of values for each unknown code, for GET /health."""
    return {"/".join(code): int(UNKNOWN.labels(*code)._value.get()) for code in sorted(_codes)}


def nacks() -> int:
    """The number of negative acknowledgements since the start."""
    return int(sum(s.value for m in NACKS.collect() for s in m.samples))


def _sender(name: str) -> str:
    if name not in _senders:
        if len(_senders) >= SENDERS_MAX:
            name = "other"
        first: dict[str, float | int | str | None]
        first = {"sender": name, "messages": 0, "last": None, "clock_difference": None}
        _senders.setdefault(name, first)
    return name


def exposition(log: Path, events: int) -> bytes:
    """All metrics in Prometheus' text format."""
    EVENTS.set(events)
    for labels, count in _messages.items():
        MESSAGES.labels(*labels).inc(count)
    _messages.clear()
    for name, sender in _senders.items():
        for gauge, key in ((LAST, "last"), (CLOCK, "clock_difference")):
            if sender[key] is not None:
                gauge.labels(name).set(float(sender[key] or 0))
    disk = disk_of(log)
    _free.set(disk.free)
    _size.set(disk.total)
    return generate_latest()
