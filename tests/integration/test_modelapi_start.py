"""Tests that a failed start is reported in one line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.modelapi_server import ROOT


def start(**environment: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--config",
            "modelapi/gunicorn.conf.py",
            "modelapi.wsgi",
        ],
        cwd=ROOT,
        env={**os.environ, "LOG_LEVEL": "WARNING", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODELAPI_PORT", "http"),
        ("MODELAPI_PORT", "70000"),
        ("MODELAPI_WORKERS", "0"),
        ("MODELS", "/nowhere"),
        ("LOG_LEVEL", "LOUD"),
        ("MODEL_TOKEN_KEY_FILE", "/nowhere"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line(key: str, value: str) -> None:
    code, [line] = start(**{key: value})
    assert code == 1
    assert line.startswith(f"modelapi: {key}={value}: ")


@pytest.mark.parametrize("content", [b"short", b"\xff\xfe not UTF-8"])
def test_an_invalid_token_key_is_reported_in_one_line(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    code, [line] = start(MODEL_TOKEN_KEY_FILE=str(key))
    assert (code, line) == (
        1,
        f"modelapi: MODEL_TOKEN_KEY_FILE={key}: a secret needs at least 32 bytes",
    )


def test_a_port_that_is_taken_is_reported_in_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, [line] = start(MODELAPI_PORT=str(port))
    assert (code, line) == (1, f"MODELAPI_PORT={port}: Address already in use")
