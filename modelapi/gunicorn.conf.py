"""The settings of gunicorn."""

import fcntl
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

# One numpy thread per worker, because the threads of several workers would compete for the cores.
# These variables must be set before numpy is imported.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


class NoPandas(MetaPathFinder):
    """Lets no module import pandas. Scikit-learn would import it if it is installed, which takes a
    second and 60 MB, although the model API passes only arrays to a model.
    """

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("the model API does not use pandas", name=name)


sys.meta_path.insert(0, NoPandas())

# The workers share their metrics in this folder. It is emptied at the start, but not when gunicorn
# reads this file again after SIGHUP, because prometheus_client is using the folder by then.
metrics = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or tempfile.mkdtemp(prefix="icu-modelapi-")
os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
if "prometheus_client" not in sys.modules:
    Path(metrics).mkdir(parents=True, exist_ok=True)
    for file in Path(metrics).glob("*.db"):
        file.unlink()

from prometheus_client import CollectorRegistry  # noqa: E402
from prometheus_client.multiprocess import (  # noqa: E402
    MultiProcessCollector,
    mark_process_dead,
)

from modelapi.metrics import WORKERS_ENDED  # noqa: E402
from modelapi.settings import Settings  # noqa: E402
from modelapi.statistics import shared  # noqa: E402
from wire.logs import formatter  # noqa: E402
from wire.settings import read  # noqa: E402
from wire.summary import Summary  # noqa: E402
from wire.tokens import TokenKeyError, read_key  # noqa: E402

try:
    settings = read(Settings)
    if settings.token_key_file:
        read_key(Path(settings.token_key_file))
except TokenKeyError as error:
    raise SystemExit(f"modelapi: MODEL_TOKEN_KEY_FILE={error}") from None
except ValueError as error:
    raise SystemExit(f"modelapi: {error}") from None

# The master creates the table in which all workers count.
shared()

bind = f"{settings.host}:{settings.port}"
workers = settings.workers
worker_class = "modelapi.worker.Worker"
threads = 4
# Longer than the default, because the tool and nginx keep connections open between batches.
keepalive = 75
timeout = 60
graceful_timeout = 10
preload_app = False
control_socket_disable = True
accesslog = None
logger_class = "modelapi.worker.Logger"
loglevel = settings.log_level.lower()
proc_name = "modelapi"

logconfig_dict = {
    "root": {"level": settings.log_level, "handlers": ["error_console"]},
    "loggers": {
        "gunicorn.error": {
            "level": settings.log_level,
            "handlers": ["error_console"],
            "propagate": False,
            "qualname": "gunicorn.error",
        }
    },
    "formatters": {
        "generic": {"()": lambda: formatter("modelapi", settings.log_format)},
    },
}


def child_exit(_: object, worker: Any) -> None:
    """Runs in the master when a worker has ended: keeps its counters and drops its live gauges."""
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
    WORKERS_ENDED.inc()


ending = threading.Event()


def post_worker_init(worker: Any) -> None:
    """Runs in each worker when it has started. One of the workers logs the summary of all
    workers."""
    worker.summary = threading.Thread(target=log_summary, name="summary", daemon=True)
    worker.summary.start()


def worker_exit(_: object, worker: Any) -> None:
    """Runs in each worker before it ends. A worker that failed to start has no summary."""
    ending.set()
    if hasattr(worker, "summary"):
        worker.summary.join(1)


def log_summary() -> None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, metrics)  # type: ignore[no-untyped-call]
    counts = {"icu_modelapi_rows_total": "rows predicted"}
    with (Path(metrics) / "summary.lock").open("w") as lock:
        # When the worker that holds the lock ends, the next one continues.
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Summary(logging.getLogger("modelapi"), counts, registry=registry):
            ending.wait()


def on_exit(_: object) -> None:
    if Path(metrics).name.startswith("icu-modelapi-"):
        shutil.rmtree(metrics, ignore_errors=True)


def on_starting(_: object) -> None:
    """Runs in the master before it starts workers. Reports a port in use in one line; gunicorn
    itself would retry for five seconds. Then imports the modules that take seconds, so that each
    worker, and each later replacement of one, starts with them and shares their memory."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise SystemExit(f"MODELAPI_PORT={settings.port}: {error.strerror}") from None
    for name in ("sklearn.calibration", "sklearn.ensemble", "modelapi.server"):
        import_module(name)
