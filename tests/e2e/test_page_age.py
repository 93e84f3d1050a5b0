"""Tests the age that the pages show in Debian's Chromium, while the database is paused, killed or
full, and after the browser was stopped.

The test takes two minutes of both cores, so it runs only on request:
`PAGE_AGE=20 python -m pytest tests/e2e/test_page_age.py` opens the pages of 20 patients.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ward
from tests.support.page_age import Looks, Stored, worst
from tests.support.pipeline import Pipeline
from tests.support.servers import MariaDB, as_root, small_disk

playwright = pytest.importorskip("playwright.sync_api")
PATIENTS = int(os.environ.get("PAGE_AGE", 0))
# At RATE messages per second, the stream takes longer than the test.
READINGS, RATE = 300_000, 1000
# The data of a page may be this many seconds older than the page says.
OLDER = 5.0

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PATIENTS, reason="PAGE_AGE is not set"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("age") / "disk", 1_000) as found:
        yield found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[MariaDB]:
    found = MariaDB(folder)
    try:
        found.start()
        with closing(as_root(found.port)) as root:
            root.cursor().execute("CREATE DATABASE tooldb")
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def pipeline(server: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with a dashboard, at RATE messages per second."""
    made = tmp_path_factory.mktemp("pipeline")
    data = ward.write(made / "data", PATIENTS, READINGS, staying=1.0).folder
    url = f"mysql://root@127.0.0.1:{server.port}/tooldb"
    (made / "run").mkdir()
    with Pipeline(made / "run", data, DATABASE_URL=url, REPLAY_RATE=str(RATE)) as found:
        found.start("dashboard")
        found.wait(lambda: found.committed() > 100)
        yield found


@pytest.fixture(scope="module")
def looks(browser: Any, pipeline: Pipeline) -> Looks:
    """The open pages, each in a browser context with its own connections."""
    url = f"http://127.0.0.1:{pipeline.environ['DASHBOARD_PORT']}"
    ids = [str(ward.FIRST_PATIENT + index) for index in range(PATIENTS)]
    addresses = {"ward": "/", "pipeline": "/pipeline"} | {each: f"/patients/{each}" for each in ids}
    pages = {}
    for name, address in addresses.items():
        pages[name] = browser.new_context().new_page()
        pipeline.wait(lambda page=pages[name], to=url + address: opened(page, to))
    return Looks(pages)


def opened(page: Any, address: str) -> bool:
    """Whether the page is there. There is no answer before the dashboard listens; the status is 404
    until the patient is stored, and 503 while the first round is slow."""
    with suppress(playwright.Error):
        return bool(page.goto(address).status == 200)
    return False


@pytest.fixture(scope="module")
def stored(pipeline: Pipeline) -> Iterator[Stored]:
    with Stored(pipeline.database_url) as found:
        yield found


@contextmanager
def paused(server: MariaDB) -> Iterator[None]:
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)


@contextmanager
def killed(server: MariaDB) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def full(folder: Path) -> Iterator[None]:
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def stopped() -> Iterator[None]:
    """Stops all processes of the browser, so that updates gather in its connections."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True, check=True
    ).stdout
    family, pids = {os.getpid()}, []
    for pid, parent, name in (
        line.split(maxsplit=2)
        for line in sorted(listed.splitlines(), key=lambda line: int(line.split()[0]))
    ):
        if int(parent) in family:
            family.add(int(pid))
            pids += [int(pid)] if name.startswith("chromium") else []
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_no_data_is_5_s_older_than_the_page_says(
    looks: Looks, stored: Stored, server: MariaDB, folder: Path
) -> None:
    pages, tool = looks.pages, ".services li[data-key='service:tool']"

    def ward(attribute: str) -> str | None:
        return pages["ward"].locator("body").get_attribute(attribute)

    def stores() -> bool:
        return stored.last("seq") > before

    before = stored.last("seq")
    looks.watch(3, stores)
    with paused(server):
        looks.watch(OLDER + 2, lambda: ward("data-late") is not None)
    assert max(look.said for look in looks.looks) >= OLDER
    before = stored.last("seq")
    looks.watch(1, stores)
    with killed(server):
        looks.watch(2, lambda: ward("data-state") == "lost")
    before = stored.last("seq")
    looks.watch(1, lambda: stores() and ward("data-state") != "lost")
    with full(folder):
        waiting = pages["pipeline"].locator(f"{tool}[data-state=waiting] [data-text=note]")
        looks.watch(2, lambda: waiting.count() > 0)
        assert waiting.text_content()
    before = stored.last("seq")
    looks.watch(1, stores)
    with stopped():
        time.sleep(OLDER + 2)
    looks.watch(3)
    ages = worst(looks.looks, stored)
    assert set(ages) == {"ward", "pipeline", "patient"}
    assert max(ages.values()) < OLDER, ages
