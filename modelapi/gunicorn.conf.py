"""gunicorn's settings, from MODELAPI_HOST, MODELAPI_PORT and MODELAPI_WORKERS."""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

# One thread of numpy a worker: rows are small, and threads of several workers would
# only fight for the cores. Must be set before numpy is imported.
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# Where the workers add up their metrics, emptied at the start. Not when this file is read
# again, on SIGHUP: prometheus_client, which looks for the folder when it is imported, is there.
metrics = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or tempfile.mkdtemp(prefix="icu-modelapi-")
os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
if "prometheus_client" not in sys.modules:
    Path(metrics).mkdir(parents=True, exist_ok=True)
    for file in Path(metrics).glob("*.db"):
        file.unlink()

from prometheus_client.multiprocess import mark_process_dead  # noqa: E402

from modelapi.metrics import WORKERS_ENDED  # noqa: E402
from modelapi.settings import JSON_LINES, from_environment, number  # noqa: E402
from modelapi.statistics import shared  # noqa: E402

try:
    settings = from_environment()
    host = os.environ.get("MODELAPI_HOST") or "127.0.0.1"
    port = number(os.environ, "MODELAPI_PORT", 5000, 1, 65535)
    workers = number(os.environ, "MODELAPI_WORKERS", 2, 1, 64)
    if settings.token_key_file is not None:
        from wire.tokens import read_key

        read_key(settings.token_key_file)
except ValueError as error:
    raise SystemExit(str(error)) from None

# Made here, in the master, so that all workers count in one table.
shared()

bind = f"{host}:{port}"
worker_class = "gthread"
threads = 4
# The tool's connections and nginx's stay open between batches.
keepalive = 75
timeout = 60
graceful_timeout = 10
preload_app = False
control_socket_disable = True
accesslog = None
loglevel = settings.log_level.lower()
proc_name = "modelapi"

if settings.log_format == "json":
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
        "formatters": {"generic": {"()": "pythonjsonlogger.json.JsonFormatter", **JSON_LINES}},
    }


def child_exit(_: object, worker: Any) -> None:
    """In the master: a worker's counts stay, its live gauges go."""
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
    WORKERS_ENDED.inc()


def on_exit(_: object) -> None:
    if Path(metrics).name.startswith("icu-modelapi-"):
        shutil.rmtree(metrics, ignore_errors=True)


def on_starting(_: object) -> None:
    """Say at once, and once, that the port is taken; gunicorn would try for five seconds."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SystemExit(f"MODELAPI_PORT={port}: {error.strerror}") from None
