"""What the model API counts, for all of gunicorn's workers together.

Each worker writes its figures to files in PROMETHEUS_MULTIPROC_DIR (prometheus_client's
multiprocess mode, set up in gunicorn.conf.py).
"""

from prometheus_client import Counter, Histogram, disable_created_metrics

# A second time series for each counter, that nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

REQUESTS = Counter(
    "icu_modelapi_requests_total", "Requests answered, by endpoint and status", ["route", "status"]
)
REQUEST_SECONDS = Histogram(
    "icu_modelapi_request_seconds", "A request, from reading to answering", buckets=SECONDS
)
ROWS = Counter("icu_modelapi_rows_total", "Rows predicted", ["model", "version"])
PREDICT_SECONDS = Histogram(
    "icu_modelapi_predict_seconds",
    "A request's rows through the model, reading and writing JSON not included",
    ["model", "version"],
    buckets=SECONDS,
)
WORKERS_ENDED = Counter("icu_modelapi_workers_ended_total", "Worker processes that have ended")
