"""Tests that an alarm from a live ward reaches the pages and can be acknowledged in Chromium."""

import json
import os
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedded.programs import ROOT, Programs
from embedded.stack import environment, free_ports
from modelapi import champion
from modelapi.artifact import Ref
from modelapi.states import StateFile
from tests.support.servers import redis_program
from tests.support.waiting import wait_until
from wire.alarms import Policy

AXE = ROOT / "tests" / "support" / "vendor" / "axe-core" / "axe.min.js"
LIVE = ("redis", "gateway", "modelapi", "buffer", "tool", "dashboard")
DAY = "2150-03-01"

pytestmark = pytest.mark.timeout(300)


def wait(until: Callable[[], object], programs: Programs, seconds: float = 120) -> None:
    wait_until(until, str(until), seconds, lambda: programs.logs(LIVE))


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Programs]:
    """A live ward. Its champion raises an alarm at a probability of 0.1 % or more."""
    redis_program()
    given = {key: os.environ[key] for key in ("PATH", "HOME", "CI") if key in os.environ}
    given |= free_ports("gateway")
    given["FUTURE_HOURS"] = "0"  # the ward's clock is in 2150
    given["ACKNOWLEDGE_URL"] = f"http://127.0.0.1:{given['GATEWAY_PORT']}"
    environ = environment(tmp_path, given, "gateway")
    StateFile(tmp_path / "models.sqlite", ROOT / "models" / "default.json").change(
        *("alarm", "icu-mortality/2", "test"),
        lambda state: champion.set_alarm(state, Ref("icu-mortality", "2"), Policy(at=0.001)),
    )
    with Programs(tmp_path, environ) as programs:
        programs.start(*LIVE)
        yield programs


def send(programs: Programs, *messages: dict[str, Any]) -> bool:
    """Posts the messages to the gateway; returns whether it has accepted all of them."""
    address = f"{programs.environ['ACKNOWLEDGE_URL']}/messages"
    body, headers = json.dumps(messages).encode(), {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as answer:  # noqa: S310
            return all(result["status"] < 300 for result in json.load(answer)["results"])
    except OSError:
        return False


def reading(hour: int, parameter: str, value: float) -> dict[str, Any]:
    stay = {"pat_id": 17, "age": 80.0, "date_admission": DAY, "date_discharge": None}
    return {"type": "reading", **stay, "day": DAY, "hour": hour} | {
        "parameter": parameter,
        "value": value,
    }


def stored(programs: Programs, sql: str) -> list[Any]:
    path = programs.environ["DATABASE_URL"].removeprefix("sqlite:///")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []  # the table does not exist yet


def test_an_alarm_is_acknowledged_on_the_page(browser: Any, live: Programs) -> None:
    vitals = [("blood_pressure", 70.0), ("heart_rate", 130.0), ("respiration_rate", 32.0)]
    messages = [reading(hour, *vital) for hour in (6, 7, 8) for vital in vitals]
    wait(lambda: send(live, *messages), live)
    wait(lambda: stored(live, "SELECT 1 FROM alarm_state WHERE raised_seq > 0"), live)
    url = f"http://127.0.0.1:{live.environ['DASHBOARD_PORT']}"
    context = browser.new_context(bypass_csp=True)  # because the test injects axe
    page = context.new_page()
    page.set_default_timeout(60_000)

    def shown(state: str) -> bool:
        page.goto(url)
        return bool(page.locator(f'.bed .alarm[data-state="{state}"]').count())

    wait(lambda: shown("on"), live)
    assert "06:00" in page.inner_text(".bed .alarm")
    page.click(".bed a")
    page.wait_for_selector("#curves canvas")
    page.wait_for_selector('.stay .alarm[data-state="on"]')
    page.evaluate(AXE.read_text())
    assert page.evaluate("axe.run().then(found => found.violations.map(v => v.id))") == []
    page.fill("[name=author]", "Ada")
    page.select_option("[name=snooze]", "4")
    page.click(".acknowledge button")
    page.wait_for_selector('.stay .alarm[data-state="seen"]')
    assert "Ada" in page.inner_text(".stay .alarm")
    assert "12:00" in page.inner_text(".stay .alarm")
    assert "Alarms: " in (page.get_attribute("#curves [role=img]", "aria-label") or "")
    wait(lambda: shown("seen"), live)
    context.close()
    kinds = stored(live, "SELECT kind, author FROM alarms WHERE version = '2' ORDER BY seq")
    assert kinds == [("raise", None), ("acknowledge", "Ada")]
