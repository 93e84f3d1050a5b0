"""The buffer's metrics, served on BUFFER_METRICS_PORT."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# No second time series for the creation time of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

RECEIVED = Counter("icu_buffer_messages_received_total", "Messages read from the stream")
MISSING = Counter("icu_buffer_messages_missing_total", "Messages that the stream left out")
BATCH = Histogram(
    "icu_buffer_batch_messages",
    "Messages in a job when it is queued",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000),
)
WAITING = Gauge("icu_buffer_waiting_messages", "Messages read and not yet in the database")
JOBS = Gauge("icu_buffer_queued_jobs", "Unfinished jobs in Redis", ["partition"])
CLOCK = Gauge(
    "icu_buffer_stream_timestamp_seconds",
    "Measuring time of the newest message queued, in the stream's own clock",
    ["partition"],
)
ENDED = Gauge("icu_buffer_stream_ended", "1 when the stream is read and stored to its end")
RECONNECTS = Counter(
    "icu_buffer_reconnects_total", "Recoveries after a failure of a peer", ["peer"]
)
REWINDS = Counter(
    "icu_buffer_rewinds_total", "Times that Redis lost jobs and their messages were read again"
)

for peer in ("stream", "redis"):
    RECONNECTS.labels(peer)
