"""Takes the screenshots of the documentation: the real pipeline on a synthetic ward, in headless
Chromium.

    python -m benchmarks.screenshots [folder]

Needs Playwright for Python and a Chromium at /usr/bin/chromium (or CHROMIUM).
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from embedded.programs import ROOT
from embedded.stack import free_port
from tests.support.pipeline import Pipeline

SIZES = {"phone": (390, 844), "laptop": (1440, 900), "wall": (3840, 2160)}
PATIENTS, DAYS, SEED = 110, 8, 4
# The share PART of the stream is sent fast, so that the curves are full. The rest is sent at RATE,
# the pace of a ward.
PART, RATE = 0.8, 20


def main() -> None:
    to = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "images")
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "patient_data"
        subprocess.run(
            [
                *(sys.executable, "-m", "hospital.synthetic", "--to", str(data)),
                *("--patients", str(PATIENTS), "--days", str(DAYS), "--seed", str(SEED)),
            ],
            cwd=ROOT,
            check=True,
        )
        (Path(folder) / "run").mkdir()
        with Pipeline(Path(folder) / "run", data, REPLAY_RATE="1500") as pipeline:
            port = free_port()
            environ = {**pipeline.environ, "DASHBOARD_PORT": str(port)}
            environ["HOSPITAL_URL"] = f"http://127.0.0.1:{environ['HOSPITAL_PORT']}"
            command = [sys.executable, "-m", "dashboard"]
            dashboard = subprocess.Popen(command, cwd=ROOT, env=environ)
            try:
                wait(lambda: bool(pipeline.health().get("messages")), "a stream")
                goal = PART * int(pipeline.health()["messages"])
                wait(lambda: pipeline.committed() >= goal, "the first part")
                pipeline.stop("hospital")
                pipeline.environ["REPLAY_RATE"] = str(RATE)
                pipeline.start("hospital")
                wait(lambda: bool(pipeline.health().get("messages")), "a stream")
                with sync_playwright() as playwright:
                    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
                    browser = playwright.chromium.launch(executable_path=chromium)
                    take(browser, f"http://127.0.0.1:{port}", to)
                    browser.close()
            finally:
                dashboard.terminate()
                dashboard.wait(10)


def take(browser: Browser, url: str, to: Path) -> None:
    """Takes screenshots of the ward page, a patient page and the pipeline page, at each size, in
    the light and the dark theme."""
    time.sleep(25)  # so that the pages show the rates of this pace
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(f"{url}/")
            page.wait_for_selector("body[data-state=live]", timeout=30_000)
            suffix = "" if scheme == "light" else "-dark"
            picture(page, to / f"ward-{size}{suffix}.png")
            patient = page.locator(".bed h2 a").first.get_attribute("href")
            page.goto(f"{url}{patient}")
            page.wait_for_selector("#curves canvas")
            picture(page, to / f"patient-{size}{suffix}.png")
            page.goto(f"{url}/pipeline")
            page.wait_for_selector("body[data-state=live]")
            picture(page, to / f"pipeline-{size}{suffix}.png")
            page.close()


def picture(page: Page, path: Path) -> None:
    page.wait_for_selector("body[data-link=open]")
    page.evaluate("document.fonts.ready")
    page.screenshot(path=path)


def wait(until: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Waits until the condition `until` is true. Raises TimeoutError. what: names the condition in
    the error."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
