"""What the buffer counts, served on BUFFER_METRICS_PORT."""

from datetime import date
from typing import Annotated

import msgspec
from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# A second time series for each counter, that nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

RECEIVED = Counter("icu_buffer_messages_received_total", "Messages read from the stream")
MISSING = Counter("icu_buffer_messages_missing_total", "Messages that the stream left out")
BATCH = Histogram(
    "icu_buffer_batch_messages",
    "Messages in a job, when it is queued",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000),
)
WAITING = Gauge("icu_buffer_waiting_messages", "Messages read, and not in the database yet")
JOBS = Gauge("icu_buffer_queued_jobs", "Jobs in Redis that are not done", ["partition"])
CLOCK = Gauge(
    "icu_buffer_stream_timestamp_seconds",
    "Measuring time of the newest message queued, in the stream's own clock",
    ["partition"],
)
ENDED = Gauge("icu_buffer_stream_ended", "1 when the stream has been read and stored to its end")
RECONNECTS = Counter(
    "icu_buffer_reconnects_total", "Times that it came back after it had not answered", ["peer"]
)
REWINDS = Counter("icu_buffer_rewinds_total", "Times that jobs were lost and messages read again")

for peer in ("stream", "redis"):
    RECONNECTS.labels(peer)


class _Measured(msgspec.Struct):
    day: str
    hour: Annotated[int, msgspec.Meta(ge=0, le=24)] = 24  # a discharge: at the end of its day


_EPOCH = date(1970, 1, 1).toordinal()
_measured = msgspec.json.Decoder(_Measured)


def stream_clock(message: bytes) -> float | None:
    """When it was measured, in seconds since 1970; None when it does not say.

    >>> stream_clock(b'{"type":"reading","day":"1970-01-02","hour":1}')
    90000.0
    """
    try:
        measured = _measured.decode(message)
        days = date.fromisoformat(measured.day).toordinal() - _EPOCH
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    return days * 86_400.0 + measured.hour * 3_600.0
