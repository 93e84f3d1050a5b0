"""What the tool counts, served on TOOL_METRICS_PORT.

The workers and the attendant are processes of their own: each writes its figures to files in
one folder (prometheus_client's multiprocess mode), and the process that started them adds them
up when asked. The files bear the process's name and not its number, so that one that was
started anew goes on counting where the dead one was.
"""

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from tool.settings import SettingError

if TYPE_CHECKING:
    from tool.data_handler import Outcome

# A second time series for each counter, that nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's name for it

if os.environ.get(FOLDER):
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        lambda: multiprocessing.current_process().name
    )

MESSAGES = Counter("icu_tool_messages_total", "Messages whose batch is in the database")
READINGS = Counter("icu_tool_readings_total", "Readings stored")
REJECTED = Counter("icu_tool_rejected_total", "Messages that could not be used", ["kind"])
PREDICTIONS = Counter("icu_tool_predictions_total", "Predictions, by when they were made", ["when"])
BATCH = Histogram(
    "icu_tool_batch_messages",
    "Messages stored in one transaction",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000),
)
BATCH_SECONDS = Histogram(
    "icu_tool_batch_seconds",
    "From taking a batch up to its commit, waiting for the database and the model included",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
LATENCY = Histogram(
    "icu_tool_latency_seconds",
    "From the buffer's receipt to the commit; once for each piece that the buffer received",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1_800),
)
MODEL_SECONDS = Histogram(
    "icu_tool_model_seconds",
    "A call for predictions, answered or not",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
MODEL_FAILURES = Counter("icu_tool_model_failures_total", "Calls without a usable answer")
PENDING = Gauge(
    "icu_tool_pending_predictions",
    "Predictions that wait for their model; counted up to 10,001",
    multiprocess_mode="mostrecent",
)
CLOCK = Gauge(
    "icu_tool_stream_timestamp_seconds",
    "Measuring time of the newest message in the database, in the stream's own clock",
    ["partition"],
    multiprocess_mode="mostrecent",
)
RECONNECTS = Counter(
    "icu_tool_reconnects_total", "Times that it came back after it had not answered", ["peer"]
)
LEFTOVERS = Counter("icu_tool_leftovers_total", "Jobs taken up that were in nobody's hands")

KINDS = ("malformed", "dates", "implausible", "set_aside")


def begin() -> None:
    """Shows as 0 what has not happened yet. For a worker or the attendant, once."""
    for kind in KINDS:
        REJECTED.labels(kind)
    for when in ("at_once", "later"):
        PREDICTIONS.labels(when)
    for peer in ("database", "redis", "model"):
        RECONNECTS.labels(peer)


def stored(partition: int, newest: bytes, outcome: "Outcome", seconds: float) -> None:
    """Counts a batch: `newest` is its last message, `seconds` how long it took."""
    clock = stream_clock(newest)
    if clock is not None:
        CLOCK.labels(partition).set(clock)
    messages = outcome.received.total()
    if not messages:
        return  # it was in the database already
    now = time.time()
    for received in outcome.received:
        LATENCY.observe(max(0.0, now - received))
    MESSAGES.inc(messages)
    READINGS.inc(outcome.stored)
    PREDICTIONS.labels("at_once").inc(outcome.predicted)
    for kind, count in outcome.kinds.items():
        REJECTED.labels(kind).inc(count)
    BATCH.observe(messages)
    BATCH_SECONDS.observe(seconds)


class Supervised:
    """The figures of the process that starts the others."""

    def __init__(self, registry: CollectorRegistry, database_url: str) -> None:
        self.restarts = Counter(
            "icu_tool_restarts_total", "Processes started anew after they died", registry=registry
        )
        if database_url.startswith("sqlite:"):
            # Of a database server's disk only its own machine knows.
            disk = partial(shutil.disk_usage, Path(database_url.removeprefix("sqlite:///")).parent)
            Gauge(
                "icu_tool_disk_free_bytes", "Space left for the database", registry=registry
            ).set_function(lambda: disk().free)
            Gauge(
                "icu_tool_disk_size_bytes", "Size of the database's disk", registry=registry
            ).set_function(lambda: disk().total)


@contextmanager
def serving(host: str, port: int, database_url: str) -> Iterator[Supervised]:
    """Serves the figures of this process and of those that it starts; on no port when 0.

    Raises SettingError when the port cannot be had.
    """
    registry = CollectorRegistry()
    supervised = Supervised(registry, database_url)
    if not port:
        yield supervised
        return
    # A fresh folder: what another run has counted is not this one's.
    with tempfile.TemporaryDirectory(prefix="icu-tool-metrics-") as folder:
        os.environ[FOLDER] = folder
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise SettingError(f"TOOL_METRICS_PORT={port}: {error.strerror}") from None
        try:
            yield supervised
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            del os.environ[FOLDER]


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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    return days * 86_400.0 + measured.hour * 3_600.0
