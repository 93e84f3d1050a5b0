"""Hospital's metrics, for GET /metrics."""

from pathlib import Path

from prometheus_client import Counter, Gauge, disable_created_metrics, generate_latest

from hospital.replay import Replay
from wire.disk import disk_of

# Omits the unused `_created` series of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

MESSAGES = Counter("icu_hospital_messages_sent_total", "Messages sent, summed over all subscribers")
SUBSCRIPTIONS = Counter("icu_hospital_subscriptions_total", "Subscriptions since the start")
_subscribers = Gauge("icu_hospital_subscribers", "Connected subscribers")
_stream = Gauge("icu_hospital_stream_messages", "Messages in the stream; 0 until it is ready")
_rejected = Gauge("icu_hospital_rejected_rows", "Rows of rejected.csv, by input file", ["file"])
_free = Gauge("icu_hospital_disk_free_bytes", "Free space on the disk of DERIVED_DATA")
_size = Gauge("icu_hospital_disk_size_bytes", "Size of the disk of DERIVED_DATA")


def exposition(replay: Replay | None, subscribers: int, derived_data: Path) -> bytes:
    """All metrics in Prometheus' text format. replay: None until the stream is ready."""
    _subscribers.set(subscribers)
    _stream.set(replay.end if replay else 0)
    for file, rows in replay.rejected.items() if replay else ():
        _rejected.labels(file).set(rows)
    disk = disk_of(derived_data)
    _free.set(disk.free)
    _size.set(disk.total)
    return generate_latest()
