"""Tests the ward page in Debian's Chromium, on rows that the tests store, without a pipeline."""

import gzip
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import groupby
from typing import Any

import pytest

from embedded.programs import ROOT
from embedded.stack import free_port
from tests.support import seeded_ward
from tests.support.seeded_ward import START
from tests.support.waiting import wait_until

PATIENTS, HOURS = 25, 20
EARLIER = "earlier"
# A stream with many patients, and the number of those that the ward page shows.
LARGE, MANY, SHOWN = "large", 1200, 120
# A stream with two patients who have values in all columns of the ward page, marked if possible.
FULL = "full"
MARKED = {
    "blood_pressure": 80.0, "heart_rate": 140.0, "respiration_rate": 30.0, "spo2": 88.0,
    "temperature": 39.5, "gcs": 7.0, "urine": 1000.0,
}  # fmt: skip

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seeded_ward.Ward]:
    """A ward whose risks fall with the patients' numbers, and a discharged patient. In an earlier
    stream, the only patient is discharged. In a large stream, the risks rise with the numbers.
    """
    path = tmp_path_factory.mktemp("ward") / "icu.sqlite"
    with seeded_ward.ward(path) as found:
        found.execute("PRAGMA journal_mode = WAL")
        for pat_id in range(1, PATIENTS + 2):
            gone = START + timedelta(days=1) if pat_id > PATIENTS else None
            found.add_stay(pat_id, START, discharged=gone)
            for hour in range(HOURS):
                at = START + timedelta(hours=hour)
                risk = 0.9 - pat_id / 100 + hour / 1000
                rate = 140.0 if (pat_id, hour) == (PATIENTS, 0) else 70.0 + pat_id
                found.add_reading(pat_id, START, at, "heart_rate", rate, risk)
        found.execute("UPDATE stays SET place = 'Bed ' || pat_id")
        found.commit()
        with seeded_ward.ward(path, EARLIER) as other:
            other.add_stay(1, START, discharged=START + timedelta(days=1))
            other.add_reading(1, START, START, "heart_rate", 70.0)
            other.commit("2025-12-31 00:00:00.000")
        with seeded_ward.ward(path, LARGE) as large:
            for pat_id in range(1, MANY + 1):
                large.add_stay(pat_id, START)
                large.add_reading(pat_id, START, START, "heart_rate", 80.0, pat_id / (2 * MANY))
            large.commit("2025-12-30 00:00:00.000")
        with seeded_ward.ward(path, FULL) as full:
            # The values of the second patient are stale.
            for pat_id, last in ((1, 40), (2, 10)):
                full.add_stay(pat_id, START)
                for hour in (last - 7, last):
                    for parameter, value in MARKED.items():
                        at = START + timedelta(hours=hour)
                        full.add_reading(pat_id, START, at, parameter, value, hour / 100)
            full.commit("2025-12-29 00:00:00.000")
        yield found


@pytest.fixture(scope="module")
def url(made: seeded_ward.Ward, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, folder = free_port(), tmp_path_factory.mktemp("dashboard")
    [(_, _, path)] = made.connection.execute("PRAGMA database_list").fetchall()
    environ = os.environ | {
        "DATABASE_URL": f"sqlite:///{path}",
        "REDIS_URL": f"unix://{folder}/none.sock",
        "HOSPITAL_URL": "http://127.0.0.1:9",
        "MODEL_URL": "http://127.0.0.1:9",
        "DASHBOARD_PORT": str(port),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dashboard"], cwd=ROOT, env=environ, stdout=log, stderr=log
        )
    found = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not answers(found):
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait(10)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310
            return True
    except OSError:
        return False


@pytest.fixture
def phone(browser: Any) -> Iterator[Any]:
    with closing(
        browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    ) as context:
        yield context.new_page()


@pytest.fixture
def laptop(browser: Any) -> Iterator[Any]:
    with closing(browser.new_context(viewport={"width": 1440, "height": 900})) as context:
        yield context.new_page()


TOUCH = """() => {
    dispatchEvent(new TouchEvent("touchstart"));
    return document.getElementById("held").textContent !== "";
}"""


def order(page: Any) -> list[str]:
    found: list[str] = page.locator(".bed:visible h2").all_text_contents()
    return [each.strip() for each in found]


def test_a_tap_anywhere_on_a_card_opens_the_patient(phone: Any, url: str) -> None:
    phone.goto(url)
    card = phone.locator(".bed").nth(1)
    box = card.bounding_box()
    card.tap(position={"x": box["width"] - 10, "y": box["height"] - 10})
    phone.wait_for_url("**/patients/2")


def test_the_order_is_held_after_a_touch_and_then_released(
    phone: Any, url: str, made: seeded_ward.Ward
) -> None:
    phone.goto(url)
    phone.wait_for_selector("body[data-link=open]")
    before = order(phone)
    assert before == [str(pat_id) for pat_id in range(1, PATIENTS + 1)]
    at = START + timedelta(hours=HOURS)
    made.add_reading(9, START, at, "heart_rate", 79.0, 0.97)
    made.commit()
    # A touch holds the order for 10 s.
    wait_until(lambda: phone.evaluate(TOUCH))
    assert order(phone) == before
    assert phone.locator(".bed", has_text="97").count()
    wait_until(lambda: phone.locator("#held").inner_text() == "")
    assert order(phone) == ["9", *(each for each in before if each != "9")]


SMALL = """() => [...document.querySelectorAll("nav a, button, input, select, summary, th a")]
    .filter((each) => each.checkVisibility())
    .map((each) => [each.getBoundingClientRect().height, each.outerHTML])
    .filter(([height]) => 0 < height && height < 44)"""


def test_a_small_phone_needs_no_sideways_scroll_and_no_fine_aim(phone: Any, url: str) -> None:
    phone.set_viewport_size({"width": 360, "height": 740})
    for path in ("/", "/patients", "/patients/1", "/pipeline", "/models", "/drift"):
        phone.goto(url + path)
        width = phone.evaluate("document.documentElement.scrollWidth")
        assert (path, width) == (path, 360)
        assert (path, phone.evaluate(SMALL)) == (path, [])
    phone.goto(url)
    # The patients come before the explanation of their curves.
    assert (
        phone.locator(".how").bounding_box()["y"] > phone.locator(".bed").last.bounding_box()["y"]
    )


def test_the_lamp_and_the_notice_stay_in_view_when_scrolled(phone: Any, url: str) -> None:
    phone.goto(url)
    phone.mouse.wheel(0, 4000)
    wait_until(lambda: phone.evaluate("scrollY") > 1000)
    for selector in (".standing .lamp", ".notice"):
        box = phone.locator(selector).bounding_box()
        assert 0 <= box["y"] < 844


@pytest.mark.parametrize("height", [1300, 2160])
def test_a_wall_display_fills_columns_of_its_height(browser: Any, url: str, height: int) -> None:
    with closing(browser.new_context(viewport={"width": 3840, "height": height})) as context:
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("body[data-link=open]")
        boxes = page.locator(".bed").evaluate_all(BOXES)
        bottom = page.locator("ol.ward").evaluate("node => node.getBoundingClientRect().bottom")
    assert len(boxes) == PATIENTS
    columns = [list(column) for _, column in groupby(boxes, lambda box: box["left"])]
    lefts = [column[0]["left"] for column in columns]
    assert lefts == sorted(set(lefts))
    assert len(columns) > 1
    first, second = columns[:2]
    row = first[1]["top"] - first[0]["top"]
    assert 0 <= bottom - first[-1]["bottom"] < row
    assert {len(column) for column in columns[:-1]} == {len(first)}
    # Two columns are in view.
    assert bottom <= height
    assert second[0]["right"] <= 3840


def test_no_text_of_a_full_card_is_cut_off_or_covered(laptop: Any, url: str) -> None:
    laptop.goto(f"{url}/?stream={FULL}")
    assert laptop.locator(".bed .vital").count() == 2 * len(MARKED)
    assert laptop.locator(".vital[data-state=stale] .mark:visible").count() == len(MARKED) - 1
    for width in (390, 1024, 1440, 2560, 3440, 3840):
        laptop.set_viewport_size({"width": width, "height": 1300})
        assert (width, laptop.evaluate(CRAMPED)) == (width, [])


def test_another_stream_can_be_chosen(laptop: Any, url: str) -> None:
    laptop.goto(url)
    assert laptop.locator("main .empty").first.is_hidden()
    laptop.locator(".streams summary").click()
    laptop.locator(".streams").get_by_role("link", name=EARLIER).click()
    laptop.wait_for_url(f"**/?stream={EARLIER}")
    assert laptop.locator("body").get_attribute("data-state") == "earlier"
    assert laptop.locator(".notice [data-text=notice]").inner_text()
    assert laptop.locator(".bed").count() == 0
    assert laptop.locator("main .empty").first.is_visible()
    laptop.locator(".streams summary").click()
    laptop.locator(".streams").get_by_role("link", name=seeded_ward.STREAM).click()
    laptop.wait_for_url(f"{url}/")
    laptop.wait_for_selector(".bed")
    assert laptop.locator(".bed").count() == PATIENTS


def test_of_1200_patients_the_riskiest_are_drawn_and_only_changes_are_sent(
    laptop: Any, url: str, made: seeded_ward.Ward
) -> None:
    sent: list[int] = []
    network = laptop.context.new_cdp_session(laptop)
    network.send("Network.enable")
    network.on("Network.eventSourceMessageReceived", lambda event: sent.append(len(event["data"])))
    answer = laptop.goto(f"{url}/?stream={LARGE}")
    laptop.wait_for_selector("body[data-link=open]")
    assert order(laptop) == [str(MANY - index) for index in range(SHOWN)]
    assert laptop.locator("[data-text=count]").inner_text() == "1\N{NO-BREAK SPACE}200"
    assert len(gzip.compress(answer.body())) < 40_000
    assert laptop.evaluate("document.querySelectorAll('*').length") < 50 * SHOWN
    sent.clear()
    [(_, _, path)] = made.connection.execute("PRAGMA database_list").fetchall()
    with seeded_ward.ward(path, LARGE) as large:
        large.seq = MANY
        large.add_reading(5, START, START + timedelta(minutes=1), "heart_rate", 80.0, 0.99)
        large.commit("2025-12-30 00:00:01.000")
    wait_until(lambda: order(laptop)[0] == "5")
    assert len(order(laptop)) == SHOWN
    # The update has the new card and the order, and not the other 119 cards.
    assert sum(sent) < len(answer.body()) / 10


def test_thresholds_have_their_source_and_value_at_the_line(laptop: Any, url: str) -> None:
    laptop.add_init_script(WRITTEN)
    laptop.goto(f"{url}/patients/{PATIENTS}")
    laptop.wait_for_selector("#curves canvas")
    written = laptop.evaluate("window.written")
    assert "NEWS2 ≥ 131" in written
    assert "NEWS2 ≤ 40" not in written  # because the axis does not reach this value
    risk, rate = laptop.locator("#curves figcaption").all_inner_texts()
    assert "≤ 40 or ≥ 131 (NEWS2)" in rate
    # The risks are between 65 and 67 %, but the model sets the scale. It has named no threshold.
    assert "axis to 100 %" in risk
    assert {"0", "100"} <= {*written}
    laptop.goto(url)
    legend = laptop.locator(".how").inner_text()
    assert "from 0 to 100\N{NO-BREAK SPACE}%" in legend
    assert "Heart rate ≤ 40 or ≥ 131 (NEWS2)" in legend


def test_the_filter_selects_patients_and_a_pin_moves_one_to_the_top(laptop: Any, url: str) -> None:
    laptop.goto(url)
    laptop.locator("#filter").fill("bed 2")
    assert {*order(laptop)} == {"2", *map(str, range(20, PATIENTS + 1))}
    laptop.locator("#filter").fill("")
    bed = laptop.locator(".bed", has=laptop.get_by_role("link", name="17", exact=True))
    bed.locator(".pin").click()
    assert order(laptop)[0] == "17"
    laptop.reload()
    assert order(laptop)[0] == "17"
    assert laptop.locator(".bed .pin").first.get_attribute("aria-pressed") == "true"


def test_screen_readers_get_ages_trends_and_marks_in_words(laptop: Any, url: str) -> None:
    laptop.goto(url)
    text = re.sub(r"\s+", " ", laptop.locator(".bed .who").first.text_content())
    assert re.search(r"63 years, .*hour \d+", text)
    snapshot = laptop.locator(".bed").nth(3).aria_snapshot()
    assert "rising by" in snapshot
    assert "▲" not in snapshot


def test_25_patients_print_on_one_page(laptop: Any, url: str) -> None:
    laptop.goto(url)
    assert laptop.locator(".bed").count() == PATIENTS
    assert len(re.findall(rb"/Type\s*/Page\b", laptop.pdf(format="A4"))) == 1


def test_a_discharged_patient_has_a_banner_and_no_current_values(laptop: Any, url: str) -> None:
    laptop.goto(f"{url}/patients/{PATIENTS + 1}")
    assert laptop.locator(".banner").inner_text()
    assert laptop.locator("tbody[data-list=vital] tr").first.get_attribute("data-state") == "last"
    grey = "node => getComputedStyle(node.querySelector('.value')).color"
    current = laptop.locator("#risk-head").evaluate("node => getComputedStyle(node).color")
    assert laptop.locator("tbody[data-list=vital] tr").first.evaluate(grey) != current


def test_hidden_pages_leave_the_connections_to_the_visible_one(browser: Any, url: str) -> None:
    """A browser has six connections to a server, and each live page uses one."""
    with closing(browser.new_context()) as context:
        pages = [context.new_page() for _ in range(8)]
        for page in pages:
            page.goto(url)
            page.wait_for_selector("body[data-link=open]")
            # Headless Chromium treats every page as visible, so this script hides the page.
            page.evaluate(HIDE, True)
        first = pages[0]
        wait_until(lambda: first.evaluate("document.body.hasAttribute('data-late')"))
        first.evaluate(HIDE, False)
        wait_until(lambda: not first.evaluate("document.body.hasAttribute('data-late')"))


# The texts that leave their cell or overlap by more than 5 px.
CRAMPED = """() => [...document.querySelectorAll(".bed :is(.vital, .risk)")].flatMap((cell) => {
    const texts = [...cell.querySelectorAll(".name, .value, .mark, .old")]
        .filter((node) => node.textContent && getComputedStyle(node).position !== "absolute")
        .map((node) => {
            const range = document.createRange();
            range.selectNodeContents(node);
            return [node.textContent, range.getBoundingClientRect()];
        });
    const edge = cell.getBoundingClientRect();
    const common = (a, b) => Math.min(
        Math.min(a.right, b.right) - Math.max(a.left, b.left),
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top),
    );
    return texts.flatMap(([text, box], index) => [
        ...(box.left < edge.left - 3 || box.right > edge.right + 3 ? [text] : []),
        ...texts.slice(0, index)
            .filter(([, other]) => common(box, other) > 5)
            .map(([other]) => `${text} on ${other}`),
    ]);
})"""
BOXES = """nodes => nodes.map(node => {
    const { left, right, top, bottom } = node.getBoundingClientRect();
    return { left, right, top, bottom };
})"""
# Records the texts that are drawn on a canvas.
WRITTEN = """
window.written = [];
const { fillText } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
    window.written.push(text);
    return fillText.call(this, text, ...where);
};
"""
HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""
