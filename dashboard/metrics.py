"""The dashboard's metrics, served on /metrics."""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# Omits the unused `_created` series of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

ROUND = Gauge(
    "icu_dashboard_last_round_timestamp_seconds",
    "Start of the last round that read the database, in seconds since 1970",
)
DURATION = Histogram(
    "icu_dashboard_round_seconds",
    "Time that a round takes to read the database",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
FAILED = Counter("icu_dashboard_failed_rounds_total", "Rounds that could not read the database")
PATIENTS = Gauge("icu_dashboard_patients", "Patients in the ICU of the current stream")
READERS = Gauge(
    "icu_dashboard_open_pages", "Open connections for live updates of ward and patient pages"
)
