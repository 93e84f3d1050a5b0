"""Runs each fuzzer with few inputs; FUZZ_INPUTS sets their number."""

import logging
import os
import random
from collections.abc import Iterator

import pytest

from tests.support.fuzz.targets import TARGETS

# For each target, a number of inputs that takes about a second, and results that must occur, so
# that not all inputs are rejected early.
SMALL = {
    "events": (8_000, "events"),
    "messages": (20_000, "decoded"),
    "tensors": (6_000, "read"),
    "cells": (4_000, "sent"),
    "model-api": (1_500, "200"),
    "dashboard": (400, "200"),
    "login": (400, "401"),
    "gateway": (1_000, "201 of a list"),
    "hl7": (4_000, "read"),
    "mllp": (300, "AA", "AR"),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS)
def test_each_input_is_used_or_rejected(target: str) -> None:
    inputs, *expected = SMALL[target]
    counts = TARGETS[target](random.Random(1), int(os.environ.get("FUZZ_INPUTS", inputs)))
    assert all(counts[each] > 0 for each in expected)
