"""The metrics of the model API, over all gunicorn workers.

Each worker writes its figures to files in PROMETHEUS_MULTIPROC_DIR (prometheus_client's
multiprocess mode, set up in gunicorn.conf.py).
"""

from prometheus_client import Counter, Histogram, disable_created_metrics

# Omits the unused `_created` series of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

REQUESTS = Counter(
    "icu_modelapi_requests_total", "Answered requests, by endpoint and status", ["route", "status"]
)
REQUEST_SECONDS = Histogram(
    "icu_modelapi_request_seconds", "Duration of a request", buckets=SECONDS
)
ROWS = Counter("icu_modelapi_rows_total", "Rows predicted or explained", ["model", "version"])
PREDICT_SECONDS = Histogram(
    "icu_modelapi_predict_seconds",
    "Time that a model takes to predict or explain, without reading or writing JSON",
    ["model", "version"],
    buckets=SECONDS,
)
WORKERS_ENDED = Counter("icu_modelapi_workers_ended_total", "Worker processes that have ended")
