"""Runs the model API in a real gunicorn, and writes models that tests can damage."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from flask import Flask
from werkzeug.serving import make_server

from embedded.stack import free_port
from modelapi.__main__ import main
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"

ROW = {
    "age": 63.2,
    "last_blood_pressure": 118.4,
    "rmean_respiration_rate": 19.5,
    "standard_deviation_temperature": 0.42,
}


def copy_models(folder: Path, *names: str) -> Path:
    """Copies the shipped models with these names to `folder`; the formula is the champion."""
    for name in names:
        shutil.copytree(MODELS / name, folder / name)
    state = {"champion": {"model": "formula", "version": "1"}, "shadows": []}
    (folder / "default.json").write_text(json.dumps(state))
    return folder


def add_linear(models: Path, name: str, version: str, intercept: float, **changes: Any) -> Path:
    """Writes a linear model that reads only the age, without code of modelapi: log odds =
    intercept + 0.01 × age. changes: members of the manifest to replace or to add.
    """
    folder = models / name / version
    folder.mkdir(parents=True)
    probability = 1 / (1 + 2.718281828459045 ** -(intercept + 0.5))
    term = {"feature": "age", "coefficient": 0.01}
    golden = [{"features": {"age": 50.0}, "outputs": {"probability": probability}}]
    write_files(
        folder,
        {
            "linear.json": {"intercept": intercept, "terms": [term]},
            "golden.json": golden,
        },
        {
            "format": 1,
            "model": name,
            "version": version,
            "title": "A test",
            "kind": "linear",
            "created": "2026-01-01T00:00:00Z",
            "features": [{"name": "age", "required": True}],
            "outputs": [{"name": "probability"}],
            **changes,
        },
    )
    return folder


def write_files(folder: Path, files: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Writes files (JSON or bytes), and the manifest with the digests of the files."""
    digests = {}
    for file, content in files.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / file).write_bytes(raw)
        digests[file] = hashlib.sha256(raw).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": digests}))


def fetch(
    url: str, document: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    """Sends GET, or POST with a document; returns status, JSON and headers."""
    data = None if document is None else json.dumps(document).encode()
    head = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data, head)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return response.status, json.loads(response.read() or b"null"), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null"), dict(error.headers)


def _answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def in_thread(app: Flask) -> Iterator[str]:
    """Serves an app in a thread of this process; yields the URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def gunicorn(models: Path, state: Path, **environment: str) -> Iterator[str]:
    """Serves `models` with two workers; yields the URL."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "modelapi/gunicorn.conf.py"]
    server = subprocess.Popen(
        [*command, "modelapi.wsgi:app"],
        cwd=ROOT,
        env={
            **os.environ,
            "MODELS": str(models),
            "MODEL_STATE": str(state),
            "MODELAPI_PORT": str(port),
            "MODELAPI_WORKERS": "2",
            **environment,
        },
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(f"{url}/health"))
        yield url
    finally:
        server.terminate()
        server.wait(30)


def command(models: Path, state: Path, *arguments: str) -> tuple[int, str, str]:
    """Runs `python -m modelapi` with arguments in this process; returns exit code, stdout and
    stderr.
    """
    out, err = io.StringIO(), io.StringIO()
    environment = {"MODELS": str(models), "MODEL_STATE": str(state)}
    with (
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()
