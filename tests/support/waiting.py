"""Waits for a state of the programs under test."""

import time
from collections.abc import Callable

import pytest


def wait_until(
    condition: Callable[[], object],
    what: str = "the condition is true",
    seconds: float = 120,
    logs: Callable[[], str] = str,
) -> None:
    """Waits until the condition is true; fails after `seconds`. what, logs: for the message."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}\n{logs()}")
        time.sleep(0.1)
