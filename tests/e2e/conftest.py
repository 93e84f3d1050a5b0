"""Starts Debian's Chromium for the tests of pages."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.servers import missing

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if shutil.which(CHROMIUM) is None:
        missing(f"no {CHROMIUM}")
    with playwright.sync_playwright() as found:
        chromium = found.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()
