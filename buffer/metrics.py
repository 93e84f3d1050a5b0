"""The buffer's metrics, served on BUFFER_METRICS_PORT."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# Omits the unused `_created` series of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

RECEIVED = Counter("icu_buffer_messages_received_total", "Messages read from the stream")
MISSING = Counter("icu_buffer_messages_missing_total", "Messages missing from the stream")
BATCH = Histogram(
    "icu_buffer_batch_messages",
    "Messages in a queued job",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000),
)
WAITING = Gauge("icu_buffer_waiting_messages", "Messages that are read but not stored yet")
JOBS = Gauge("icu_buffer_queued_jobs", "Unfinished jobs in Redis", ["partition"])
CLOCK = Gauge(
    "icu_buffer_stream_timestamp_seconds",
    "Time of the newest queued message, on the stream's own clock",
    ["partition"],
)
ENDED = Gauge("icu_buffer_stream_ended", "1: the whole stream is read and stored; 0: it is not")
RECONNECTS = Counter(
    "icu_buffer_reconnects_total",
    "Recoveries after a failure of a peer: the stream or Redis",
    ["peer"],
)
REWINDS = Counter(
    "icu_buffer_rewinds_total",
    "Number of times that messages were read again because Redis lost jobs",
)

for peer in ("stream", "redis"):
    RECONNECTS.labels(peer)
