"""The tool's metrics, served on TOOL_METRICS_PORT.

Each process writes its metrics to files in one folder (prometheus_client's multiprocess mode), and
the supervisor sums them for a scrape. The files are named after the process, not after its process
id, so that a restarted process continues the counts.
"""

import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from tool.result import Result
from wire import metrics_server
from wire.database import is_sqlite, sqlite_path
from wire.disk import disk_of
from wire.messages import CODES
from wire.settings import SettingError
from wire.stream_clock import stream_clock
from wire.summary import Summary

# Omits the unused `_created` series of each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the environment variable that prometheus_client reads

if os.environ.get(FOLDER):
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: multiprocessing.current_process().name
    )

MESSAGES = Counter("icu_tool_messages_total", "Messages in stored batches")
READINGS = Counter("icu_tool_readings_total", "Readings stored")
REJECTED = Counter("icu_tool_rejected_total", "Rejected messages, by reason code", ["code"])
PREDICTIONS = Counter(
    "icu_tool_predictions_total",
    "Predictions, by when: at once, or later because the model did not answer at first",
    ["when"],
)
BATCH = Histogram(
    "icu_tool_batch_messages",
    "Messages in a stored batch",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000),
)
BATCH_SECONDS = Histogram(
    "icu_tool_batch_seconds",
    "Duration of a batch until its commit, including waits for the database and the model",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
WORK_SECONDS = Counter(
    "icu_tool_work_seconds_total",
    "Time that the workers spent on batches, by kind of work: database, features or model",
    ["kind"],
)
LATENCY = Histogram(
    "icu_tool_latency_seconds",
    "Time from receipt by the buffer to commit; one observation per batch and time of receipt",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800),
)
MODEL_SECONDS = Histogram(
    "icu_tool_model_seconds",
    "Duration of a request for predictions, successful or not",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
MODEL_FAILURES = Counter("icu_tool_model_failures_total", "Failed requests for predictions")
PENDING = Gauge(
    "icu_tool_pending_predictions",
    "Pending predictions, counted up to 10,001",
    multiprocess_mode="mostrecent",
)
ALARMS = Counter("icu_tool_alarms_total", "Alarm events, by model and kind", ["model", "kind"])
SENT = Counter("icu_tool_webhook_sent_total", "Alarms that the webhook has accepted")
UNSENT = Gauge(
    "icu_tool_webhook_unsent",
    "Alarms that the webhook has not accepted yet; counted up to 200",
    multiprocess_mode="mostrecent",
)
CLOCK = Gauge(
    "icu_tool_stream_timestamp_seconds",
    "Time of the newest stored message, on the stream's own clock",
    ["partition"],
    multiprocess_mode="mostrecent",
)
DRIFT = Gauge(
    "icu_tool_drift_alerts",
    "Figures outside their band on the last complete stream day, by kind: inputs, predictions or "
    "outcomes",
    ["model", "version", "kind"],
    multiprocess_mode="mostrecent",
)
UP = Gauge(
    "icu_tool_peer_up",
    "1 if Redis or the database answers the tool, 0 if not",
    ["peer"],
    multiprocess_mode="mostrecent",
)
REDIS_MEMORY = Gauge(
    "icu_tool_redis_memory_bytes", "Memory in use by Redis", multiprocess_mode="mostrecent"
)
REDIS_MEMORY_MAX = Gauge(
    "icu_tool_redis_memory_max_bytes",
    "Memory that Redis may use; 0: no limit",
    multiprocess_mode="mostrecent",
)
CONNECTIONS = Gauge(
    "icu_tool_database_connections",
    "Open connections of the database server",
    multiprocess_mode="mostrecent",
)
CONNECTIONS_MAX = Gauge(
    "icu_tool_database_connections_max",
    "Connections that the database server allows",
    multiprocess_mode="mostrecent",
)
TOKEN_EXPIRES = Gauge(
    "icu_tool_token_expires_timestamp_seconds",
    "Time at which the tool's token for the model API expires; 0 if it cannot be read",
    multiprocess_mode="mostrecent",
)
BACKUP = Gauge(
    "icu_tool_last_backup_timestamp_seconds",
    "Time of the last backup; if Redis has none, the time at which the tool first checked",
    multiprocess_mode="mostrecent",
)
RECONNECTS = Counter(
    "icu_tool_reconnects_total",
    "Recoveries after a failure of a peer: the database, Redis or the model API",
    ["peer"],
)
FAILED_JOBS = Counter(
    "icu_tool_failed_jobs_total",
    "Jobs that failed for another reason than dead letters, for example jobs of other programs",
)
LEFTOVERS = Counter(
    "icu_tool_leftovers_total", "Unfinished jobs of dead workers that were queued again"
)


def begin() -> None:
    """Sets the counters that have fixed labels to 0. Call this function once per process."""
    for code in CODES:
        REJECTED.labels(code)
    for when in ("at_once", "later"):
        PREDICTIONS.labels(when)
    for peer in ("database", "redis", "model"):
        RECONNECTS.labels(peer)
    for kind in ("database", "features", "model"):
        WORK_SECONDS.labels(kind)


@contextmanager
def working(kind: str) -> Iterator[None]:
    """Adds the duration of the block to the time spent on this kind of work."""
    started = time.perf_counter()
    try:
        yield
    finally:
        WORK_SECONDS.labels(kind).inc(time.perf_counter() - started)


def stored(partition: int, newest: bytes, result: Result, seconds: float) -> None:
    """Records a stored batch. newest: its last message. seconds: its duration."""
    clock = stream_clock(newest)
    if clock is not None:
        CLOCK.labels(partition).set(clock)
    messages = result.received.total()
    if not messages:
        return  # all messages were already stored
    now = time.time()
    for received in result.received:
        LATENCY.observe(max(0.0, now - received))
    MESSAGES.inc(messages)
    READINGS.inc(result.stored)
    PREDICTIONS.labels("at_once").inc(result.predicted)
    for code, count in result.codes.items():
        REJECTED.labels(code).inc(count)
    BATCH.observe(messages)
    BATCH_SECONDS.observe(seconds)


COUNTS = {
    "icu_tool_messages_total": "messages stored",
    "icu_tool_readings_total": "readings",
    "icu_tool_rejected_total": "rejected",
    "icu_tool_predictions_total": "predictions",
    "icu_tool_alarms_total": "alarm events",
}


class Supervised:
    """The metrics of the supervisor."""

    def __init__(self, registry: CollectorRegistry, database_url: str) -> None:
        self.restarts = Counter(
            "icu_tool_restarts_total", "Restarts of processes that died", registry=registry
        )
        self.partitions = Gauge(
            "icu_tool_partitions", "Partitions that this tool works on", registry=registry
        )
        if is_sqlite(database_url):
            # Only for SQLite, because the disk of a database server is visible only on its own
            # machine.
            disk = partial(disk_of, sqlite_path(database_url))
            Gauge(
                "icu_tool_disk_free_bytes", "Free space on the database's disk", registry=registry
            ).set_function(lambda: disk().free)
            Gauge(
                "icu_tool_disk_size_bytes", "Size of the database's disk", registry=registry
            ).set_function(lambda: disk().total)


@contextmanager
def serving(
    host: str, port: int, names: Collection[str], database_url: str
) -> Iterator[Supervised]:
    """Collects the metrics of this process and its children, logs their summary, and serves them
    unless the port is 0.

    names: allowed host names. Raises SettingError when the port is taken.
    """
    registry = CollectorRegistry()
    supervised = Supervised(registry, database_url)
    # The folder is new, so that it has no counts of earlier runs.
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="icu-tool-metrics-"))
        os.environ[FOLDER] = folder
        stack.callback(os.environ.pop, FOLDER)
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        if port:
            try:
                server, thread = metrics_server.serve(host, port, names, registry)
            except OSError as error:
                raise SettingError(f"TOOL_METRICS_PORT={port}: {error.strerror}") from None
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        current = {"icu_tool_pending_predictions": "predictions pending now"}
        stack.enter_context(Summary(logging.getLogger("tool"), COUNTS, current, registry))
        yield supervised
