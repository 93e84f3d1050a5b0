"""Tests the pages of a real pipeline in Chromium."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dashboard import formats
from embedded.programs import ROOT
from embedded.stack import free_port
from tests.support.pipeline import Pipeline, synthetic
from tests.support.waiting import wait_until

playwright = pytest.importorskip("playwright.sync_api")
AXE = Path(__file__).parents[1] / "support" / "vendor" / "axe-core" / "axe.min.js"

pytestmark = pytest.mark.timeout(300)


class Dashboard:
    """Runs `python -m dashboard` for a pipeline. The port stays the same after a restart."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = self.pipeline.environ | {
            "DASHBOARD_PORT": str(self.port),
            "HOSPITAL_URL": f"http://127.0.0.1:{self.pipeline.environ['HOSPITAL_PORT']}",
        }
        with (self.pipeline.folder / "dashboard.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dashboard"], cwd=ROOT, env=environ, stdout=log, stderr=log
            )
        wait_until(lambda: self.health() is not None, "the dashboard answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def health(self) -> dict[str, Any] | None:
        try:
            address = f"{self.url}/health"
            with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            return None


def until(page: Any, script: str, argument: object, seconds: float = 30) -> None:
    """Waits until the script returns true. Playwright's own `wait_for_function` evaluates text,
    which the security policy of the pages forbids.
    """

    def holds() -> bool:
        try:
            return bool(page.evaluate(script, argument))
        except playwright.Error:
            return False  # The page is reloading itself, as it does when the stream changes.

    wait_until(holds, script, seconds)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that has read half of the stream; the rest arrives slowly."""
    data = synthetic(tmp_path_factory.mktemp("ward"), "--patients", "40", "--days", "8")
    with Pipeline(tmp_path_factory.mktemp("run"), data, REPLAY_RATE="1000") as found:
        found.wait(lambda: bool(found.health().get("messages")))
        half = found.health()["messages"] // 2
        # Waits until the buffer has read this half. Storing it takes much longer on a slow machine.
        found.wait(lambda: found.position().get("seq", 0) >= half)
        found.stop("hospital")
        found.environ["REPLAY_RATE"] = "8"
        found.start("hospital")
        found.wait(lambda: bool(found.health().get("messages")))
        yield found


@pytest.fixture(scope="module")
def dashboard(pipeline: Pipeline) -> Iterator[Dashboard]:
    found = Dashboard(pipeline)
    found.start()
    yield found
    found.stop()


@pytest.fixture
def page(browser: Any, dashboard: Dashboard) -> Iterator[Any]:
    """A page. The test fails if the page has an error or sends a request to another host."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    found = context.new_page()
    found.set_default_timeout(30_000)
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda said: wrong.append(said.text) if is_fault_of_page(said) else None)
    found.on(
        "request",
        lambda asked: None if asked.url.startswith(dashboard.url) else wrong.append(asked.url),
    )
    yield found
    context.close()
    assert wrong == []


def is_fault_of_page(said: Any) -> bool:
    """Whether an error comes from the page, such as a violation of the policy, and not from an
    unavailable server.
    """
    return said.type == "error" and "Failed to load resource" not in said.text


def ask(pipeline: Pipeline, sql: str, *arguments: object) -> list[Any]:
    path = pipeline.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, arguments).fetchall()


def number(text: str) -> float:
    return float(re.sub(r"[^0-9.\-]", "", text.replace("−", "-")))


SHOWN = """beds => beds.map(bed => [
    bed.querySelector("h2").textContent,
    bed.querySelector(".risk .value").textContent,
    bed.querySelector(".vital .value").textContent,
])"""


def stored_ward(pipeline: Pipeline) -> list[tuple[int, float | None, float | None]]:
    """The patient, the risk in percent and the blood pressure of each bed, highest risk first."""
    found = []
    for (pat_id,) in ask(pipeline, "SELECT pat_id FROM stays WHERE date_discharge IS NULL"):
        pressure = ask(
            pipeline,
            "SELECT value FROM readings WHERE pat_id = ? AND parameter = 'blood_pressure'"
            " ORDER BY measured_at DESC, seq DESC LIMIT 1",
            pat_id,
        )
        risk = ask(
            pipeline,
            "SELECT 100 * output FROM predictions WHERE pat_id = ?"
            " AND (model, version) = (SELECT model, version FROM models WHERE role = 'champion')"
            " AND output IS NOT NULL ORDER BY measured_at DESC, seq DESC LIMIT 1",
            pat_id,
        )
        found.append((pat_id, risk[0][0] if risk else None, pressure[0][0] if pressure else None))
    return sorted(found, key=lambda bed: (bed[1] is None, -(bed[1] or 0), bed[0]))


def test_the_ward_equals_the_database(page: Any, dashboard: Dashboard, pipeline: Pipeline) -> None:
    page.goto(dashboard.url)
    # Hospital is stopped, so that the page and the database do not change.
    pipeline.send("hospital", signal.SIGSTOP)
    try:
        wait_until(pipeline.stored, "all messages are stored")
        stored = stored_ward(pipeline)
        expected = [
            [
                str(pat_id),
                "—" if risk is None else f"{risk:.{0 if risk >= 9.95 else 1}f}",
                "—" if pressure is None else f"{pressure:.0f}",
            ]
            for pat_id, risk, pressure in stored
        ]
        shown: list[list[str]] = []

        def equal() -> bool:
            with suppress(playwright.Error):  # the page may reload meanwhile
                shown[:] = page.locator(".bed").evaluate_all(SHOWN)
            return shown == expected

        deadline = time.monotonic() + 30
        while not equal() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert shown == expected
        assert len(shown) > 3
    finally:
        pipeline.send("hospital", signal.SIGCONT)


def test_a_new_message_appears_without_reload(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url)
    page.evaluate("window.here = true")
    before = page.locator("ol.ward").inner_text()
    until(page, "text => document.querySelector('ol.ward').innerText !== text", before)
    assert page.evaluate("window.here")


def test_a_patient_page_shows_the_whole_stay(
    page: Any, dashboard: Dashboard, pipeline: Pipeline
) -> None:
    page.goto(dashboard.url)
    page.locator(".bed h2 a").first.click()
    page.wait_for_selector("#curves canvas")
    pat_id = int(page.url.rpartition("/")[2])
    parameters = ask(
        pipeline, "SELECT COUNT(DISTINCT parameter) FROM readings WHERE pat_id = ?", pat_id
    )
    assert page.locator("#curves figure").count() == parameters[0][0] + 1
    assert page.locator("tbody[data-list=feature] tr").count() >= 4
    page.locator("[aria-labelledby=features-head] summary").click()
    page.wait_for_selector("tbody[data-list=feature] rect[data-kind=raises]")
    page.wait_for_selector("#reasons li")
    assert 1 <= page.locator("#reasons li").count() <= 5
    # The contributions add up to the log odds of the prediction.
    told = page.locator("tbody[data-list=feature] tr td:nth-child(3)").all_inner_texts()
    risk = number(page.locator("[data-text=risk]").inner_text()) / 100
    log_odds = sum(number(text) for text in told)
    # From 10 % on, the page shows whole percentages.
    assert 1 / (1 + 2.718281828**-log_odds) == pytest.approx(risk, abs=0.006)
    page.locator("[aria-labelledby=curves-head] summary").click()
    page.wait_for_selector("#readings tbody td")
    cells = page.locator("#readings tbody tr").first.locator("td").all_inner_texts()
    assert len(cells) == parameters[0][0] + 2
    # The open page drops withdrawn readings.
    of = "FROM readings WHERE pat_id = ? AND measured_at"
    ((newest,),) = ask(pipeline, f"SELECT MAX(measured_at) {of} > ''", pat_id)
    at = datetime.fromisoformat(newest)
    told = [formats.moment(at).replace(f" {at.year}", "")]
    shows = "([time, wanted]) => wanted === [...document.querySelectorAll('#readings td')].some("
    shows += "cell => cell.textContent === time)"
    until(page, shows, [*told, True])
    path = pipeline.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(f"DELETE {of} = ?", (pat_id, newest))
    until(page, shows, [*told, False])


def test_the_period_of_the_curves_is_chosen_by_keyboard(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url)
    page.locator(".bed h2 a").last.click()
    page.wait_for_selector("#curves canvas")
    button = page.locator("button", has_text="6 h")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"


# Only the rules about colours depend on the colour scheme.
RULES = {
    "light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "dark": ["cat.color"],
}


def test_pages_have_no_accessibility_violation(page: Any, dashboard: Dashboard) -> None:
    for address in (
        *("/", "/patients", "/pipeline", "/models", "/models/icu-mortality/1", "/drift"),
        *("patient", "/patients/999999999"),
    ):
        if address == "patient":
            page.goto(dashboard.url)
            address = page.locator(".bed h2 a").first.get_attribute("href")
        page.goto(dashboard.url + address)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            for scheme, rules in RULES.items():
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                # The page may have reloaded itself.
                if not page.evaluate("'axe' in window"):
                    page.evaluate(AXE.read_text())
                found = page.evaluate("runOnly => axe.run({runOnly})", rules)
                told = [
                    (rule["id"], rule["impact"], [node["target"] for node in rule["nodes"]][:3])
                    for rule in found["violations"]
                ]
                assert told == [], f"{address} at {width}, {scheme}"


def test_the_ward_works_by_keyboard_and_keeps_its_order_while_it_has_the_focus(
    page: Any, dashboard: Dashboard
) -> None:
    for _ in range(5):
        page.goto(dashboard.url)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to main content"
        first = page.locator(".bed h2 a").first
        first.focus()
        patient = first.inner_text()
        # The new order is applied only when the focus has left the list.
        page.evaluate(
            """() => {
                const list = document.querySelector("ol.ward");
                window.keys = () => [...list.children].map((bed) => bed.dataset.key);
                window.before = window.keys();
            }"""
        )
        page.wait_for_timeout(3000)
        # The list loses the focus if the focused patient is discharged, or if the page reloads.
        if page.evaluate("window.keys !== undefined && window.keys().includes(window.before[0])"):
            break
    kept = page.evaluate("window.before.filter((key) => window.keys().includes(key))")
    assert page.evaluate("window.keys()")[: len(kept)] == kept
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/patients/{patient}")


def test_a_paused_page_does_not_change_and_shows_that_it_is_paused(
    page: Any, dashboard: Dashboard
) -> None:
    page.goto(dashboard.url)
    page.wait_for_selector("body[data-link=open]")
    page.locator("#pause").click()
    page.wait_for_selector("body[data-link=paused]")
    text = page.locator("main").inner_text()
    page.wait_for_timeout(2500)
    assert page.locator("main").inner_text() == text
    page.locator("#pause").click()
    page.wait_for_selector("body[data-link=open]")
    until(page, "text => document.querySelector('main').innerText !== text", text)


@pytest.mark.parametrize("name", ["hospital", "modelapi", "buffer", "redis", "tool"])
def test_a_killed_service_and_its_restart_are_shown(
    page: Any, dashboard: Dashboard, pipeline: Pipeline, name: str
) -> None:
    page.goto(f"{dashboard.url}/pipeline")
    card = f".services li[data-key='service:{name}']"
    page.wait_for_selector(f"{card}[data-state=up]")
    pipeline.kill(name)
    page.wait_for_selector(f"{card}[data-state=down]", timeout=60_000)
    assert page.locator("[data-text=notice]").inner_text() != ""
    pipeline.start(name)
    page.wait_for_selector(f"{card}[data-state=up]", timeout=60_000)
    wait_until(lambda: page.locator("[data-text=notice]").inner_text() == "", "the notice is empty")


def test_a_page_reconnects_after_a_restart_of_the_dashboard(
    page: Any, dashboard: Dashboard
) -> None:
    page.goto(dashboard.url)
    page.wait_for_selector("body[data-link=open]")
    dashboard.stop()
    page.wait_for_selector("body[data-link=lost]")
    assert "not current" in page.locator("#link").inner_text()
    dashboard.start()
    page.wait_for_selector("body[data-link=open]")
    text = page.locator("ol.ward").inner_text()
    until(page, "text => document.querySelector('ol.ward').innerText !== text", text)


class Cable:
    """A proxy in front of the dashboard. It can stop forwarding without closing its connections."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Stops forwarding on the existing connections that carry /events; all others work."""
        self._cut.set()
        self._cut = threading.Event()

    def close(self) -> None:
        self._listener.close()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                live = threading.Event()
                for ends in ((near, far), (far, near)):
                    threading.Thread(
                        target=self._carry, args=(*ends, live, self._cut), daemon=True
                    ).start()

    @staticmethod
    def _carry(
        source: socket.socket, to: socket.socket, live: threading.Event, cut: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if data.startswith(b"GET /events"):
                    live.set()
                if not (live.is_set() and cut.is_set()):
                    to.sendall(data)
            to.shutdown(socket.SHUT_WR)


def test_a_page_replaces_a_dead_connection(browser: Any, dashboard: Dashboard) -> None:
    cable = Cable(dashboard.port)
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{cable.port}/")
        page.wait_for_selector("body[data-link=open]")
        for _ in range(5):
            # The page may connect again before the test could see that the connection is lost.
            page.evaluate(
                """() => {
                    window.links = [];
                    const observer = new MutationObserver(
                        () => window.links.push(document.body.dataset.link)
                    );
                    observer.observe(document.body, { attributeFilter: ["data-link"] });
                }"""
            )
            cable.cut()
            # Each attempt takes 12 s, and the browser may try its other connections first.
            done = "() => window.links === undefined || window.links.join().includes('lost,open')"
            until(page, done, None, 120)
            if page.evaluate("window.links !== undefined"):
                break  # otherwise the page has reloaded itself, on new connections
        assert page.evaluate("window.links.join()").endswith("lost,open")
    finally:
        context.close()
        cable.close()


def test_a_page_reloads_when_its_session_has_ended(page: Any, dashboard: Dashboard) -> None:
    """Behind nginx, the second load leads to the login page."""
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))
    ended = {"content_type": "text/event-stream", "body": "event: ended\ndata: {}\n\n"}
    page.route("**/events?**", lambda route: route.fulfill(**ended), times=1)
    page.goto(f"{dashboard.url}/pipeline")
    playwright.expect(page.locator("body")).to_have_attribute("data-link", "open", timeout=30_000)
    assert loads == [f"{dashboard.url}/pipeline"] * 2


def test_events_resume_after_the_last_event_id(dashboard: Dashboard) -> None:
    def first(since: str) -> tuple[str, dict[str, Any]]:
        address = f"{dashboard.url}/events?page=ward"
        asked = urllib.request.Request(address, headers={"Last-Event-ID": since})  # noqa: S310
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            event = ""
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    event = value
                if name == "data" and event:
                    return event, json.loads(value)
        raise AssertionError("no event")

    event, everything = first("")
    assert len(everything["html"]) > 5
    later, news = first(event)
    assert later.split("-")[0] == event.split("-")[0]
    assert int(later.split("-")[1]) > int(event.split("-")[1])
    assert len(json.dumps(news)) < len(json.dumps(everything)) / 3
    # For an id of another run of the dashboard, everything is sent, as on a first visit.
    assert len(first("00000000-5")[1]["html"]) > 5


@pytest.mark.parametrize("address", ["/patients/123456789", "/patients?q=%3Cscript%3E", "/no"])
def test_a_missing_page_is_not_found_and_runs_no_script(
    page: Any, dashboard: Dashboard, address: str
) -> None:
    answer = page.request.get(dashboard.url + address)
    assert answer.status == 404
    assert "<script>" not in answer.text()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
