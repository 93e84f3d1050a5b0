"""Measures the ward page of a large ward: bytes, updates, and frames in headless Chromium.

    python -m benchmarks.page_figures 1200 5000

The dashboard reads stored rows, to which this program adds readings at RATE; no pipeline runs.
Needs Playwright for Python and a Chromium at /usr/bin/chromium (or CHROMIUM).
"""

import gzip
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from playwright.sync_api import Browser, CDPSession, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.screenshots import SIZES, wait
from embedded.programs import ROOT
from embedded.stack import free_port
from tests.support import seeded_ward
from tests.support.seeded_ward import START, VITALS

HOURS, RATE, SECONDS = 12, 50, 10.0
FRAMES = """() => {
    window.frames_ = [];
    let last = performance.now();
    const next = () => {
        const now = performance.now();
        window.frames_.push(now - last);
        last = now;
        requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
}"""


def main() -> None:
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    for patients in map(int, sys.argv[1:] or ["1200", "5000"]):
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            path = Path(folder) / "icu.sqlite"
            with seeded_ward.ward(path) as made, dashboard(path, made, patients) as url:
                began = rounds(url)
                print(f"{patients} patients")
                for name in ("", "patients", "patients/1", "pipeline.json", "events?page=ward"):
                    print(f"  /{name}: {size(url + name)}", flush=True)
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--disable-gpu"]
                )
                for name, (width, height) in SIZES.items():
                    measure(browser, url, made, patients, name, width, height)
                browser.close()
                number, total = (b - a for a, b in zip(began, rounds(url), strict=True))
                print(f"  {number:.0f} rounds, mean time in the database {total / number:.2f} s")


@contextmanager
def dashboard(path: Path, made: seeded_ward.Ward, patients: int) -> Iterator[str]:
    """Starts a dashboard on a ward with stored rows; yields its address."""
    made.execute("PRAGMA journal_mode = WAL")
    seeded_ward.fill(made, patients, HOURS)
    port = free_port()
    environ = os.environ | {
        "DATABASE_URL": f"sqlite:///{path}",
        "REDIS_URL": f"unix://{path}.sock",
        "HOSPITAL_URL": "http://127.0.0.1:9",
        "MODEL_URL": "http://127.0.0.1:9",
        "DASHBOARD_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "dashboard"], cwd=ROOT, env=environ)
    url = f"http://127.0.0.1:{port}/"
    try:
        wait(lambda: answers(url), "the dashboard")
        yield url
    finally:
        process.terminate()
        process.wait(10)


def size(url: str) -> str:
    """The size of a page, or of the first event of a stream of events."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        if "/events" in url:
            content = next(line for line in answer if line.startswith(b"data: "))
        else:
            content = answer.read()
    return f"{len(content) / 1e3:.0f} kB, {len(gzip.compress(content, 6)) / 1e3:.0f} kB with gzip"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30):  # noqa: S310
            return True
    except OSError:
        return False


def rounds(url: str) -> tuple[float, float]:
    """The number of rounds, and their time in the database in seconds."""
    with urllib.request.urlopen(f"{url}metrics") as answer:  # noqa: S310
        families = text_string_to_metric_families(answer.read().decode())
    found = {sample.name: sample.value for family in families for sample in family.samples}
    return found["icu_dashboard_round_seconds_count"], found["icu_dashboard_round_seconds_sum"]


def measure(
    browser: Browser,
    url: str,
    made: seeded_ward.Ward,
    patients: int,
    name: str,
    width: int,
    height: int,
) -> None:
    """Opens the page and prints its figures while readings are added."""
    page = browser.new_page(viewport={"width": width, "height": height})
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Performance.enable")
    received: list[int] = []
    network.on("Network.dataReceived", lambda event: received.append(event["encodedDataLength"]))
    page.goto(url)
    page.wait_for_selector("body[data-link=open]")
    received.clear()
    busy = page_seconds(network)
    page.evaluate(FRAMES)
    draw, end = random.Random(3), time.monotonic() + SECONDS
    while time.monotonic() < end:
        add_readings(made, patients, draw)
        page.wait_for_timeout(500)
    frames = sorted(page.evaluate("window.frames_"))
    p50, p99 = frames[len(frames) // 2], frames[int(0.99 * len(frames))]
    print(
        f"  {name}: {page.locator('.bed').count()} beds, frames p50 {p50:.0f} ms, "
        f"p99 {p99:.0f} ms, longest {frames[-1]:.0f} ms, "
        f"main thread {(page_seconds(network) - busy) / SECONDS:.0%}, "
        f"updates {sum(received) / SECONDS / 1e3:.1f} kB/s",
        flush=True,
    )
    page.close()


def page_seconds(network: CDPSession) -> float:
    """Seconds that the page's main thread has worked."""
    found = network.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in found if each["name"] == "TaskDuration"))


def add_readings(made: seeded_ward.Ward, patients: int, draw: random.Random) -> None:
    """Adds the readings of half a second, as the tool does."""
    at = START + timedelta(hours=HOURS, seconds=made.seq % 3000)
    for _ in range(RATE // 2):
        parameter = draw.choice(list(VITALS))
        value, risk = round(draw.uniform(80, 110), 1), draw.random() / 2
        made.add_reading(draw.randint(1, patients), START, at, parameter, value, risk)
    made.execute("UPDATE positions SET seq = ?, vitals_seq = ?", made.seq, made.seq)
    made.connection.commit()


if __name__ == "__main__":
    main()
