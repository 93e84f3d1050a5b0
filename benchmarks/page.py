"""Measures how much an open ward page slows a replay, in pairs of runs with and without the
page."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from html import unescape
from pathlib import Path

from benchmarks import oracle
from benchmarks.bench import Bench, Result
from benchmarks.databases import CannotMeasure, SQLiteFiles
from benchmarks.end_to_end import SHIPPED

CHROMIUM = os.environ.get("CHROMIUM", "chromium")
PATIENTS = 200
START_SECONDS = 4  # seconds until Chromium has drawn the empty page
READ = "import sys, urllib.request as u; a = u.urlopen(sys.argv[1])\nwhile a.read1(65536): pass"
EVENTS = re.compile(r'data-live="([^"]*)" data-since="([^"]*)"')

Opened = Callable[[str, Path], AbstractContextManager[object]]


def run(bench: Bench) -> Iterator[Result]:
    """Runs the programs as `make replay` does: with SQLite, the models as shipped, and the
    program `front`."""
    shown: dict[str, tuple[str, Opened]] = {
        "read": ("read by a client elsewhere", _read),
    }
    if shutil.which(CHROMIUM):
        shown["drawn"] = ("drawn by Chromium on the same machine", _drawn)
    pairs = 1 if bench.quick else 3
    for key, (viewer, opened) in shown.items():
        without: list[float] = []
        with_page: list[float] = []
        for turn in range(pairs):
            order = ((without, _closed), (with_page, opened))
            for speeds, how in order if turn % 2 == 0 else reversed(order):
                speeds.append(_replay(bench, how))
        yield Result(
            f"page {key}",
            f"replay with the ward page open, {viewer}",
            statistics.median(with_page),
            "messages/s",
            statistics.median(without),
            f"without it, median of {pairs}",
            {"with": with_page, "without": without},
        )


def _replay(bench: Bench, opened: Opened) -> float:
    server = SQLiteFiles(bench.folder / "page")
    ward = bench.ward(PATIENTS, 12_000 if bench.quick else 120_000, 1.0)
    url = server.fresh("pipeline")
    with bench.pipeline(ward.folder, url, server, MODELS=str(SHIPPED)) as pipeline:
        pipeline.ready("redis", "modelapi", "tool", "hospital", "dashboard", "front")
        front = f"http://127.0.0.1:{pipeline.environ['FRONT_PORT']}/"
        with opened(front, pipeline.folder):
            usage = pipeline.run(60 + ward.rows / 500)
        pipeline.wait_for_model()
    oracle.check(ward, url, pipeline.stream, 2)
    server.drop("pipeline")
    return usage.messages / usage.seconds


def _closed(url: str, folder: Path) -> AbstractContextManager[object]:
    return nullcontext()


@contextmanager
def _read(url: str, folder: Path) -> Iterator[None]:
    """Reads the page and all its events, and discards them."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        found = EVENTS.search(answer.read().decode())
    if found is None:
        raise CannotMeasure("the ward page contains no address of its events")
    live, since = found.groups()
    with _running(sys.executable, "-c", READ, f"{url}events?{unescape(live)}&since={since}"):
        yield


@contextmanager
def _drawn(url: str, folder: Path) -> Iterator[None]:
    with _running(
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"),
        *(f"--user-data-dir={folder / 'chromium'}", "--remote-debugging-port=0"),
        *("--window-size=1440,900", url),
    ):
        time.sleep(START_SECONDS)
        yield


@contextmanager
def _running(*command: str) -> Iterator[None]:
    viewer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        if viewer.poll() is not None:
            raise CannotMeasure(f"{command[0]} ended before the replay did")
    finally:
        viewer.terminate()
        viewer.wait(10)
