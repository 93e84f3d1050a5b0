"""Compares the age that open pages show with the real age of their data.

The data on a page has a position: on the ward page a time of the stream, on the pipeline page a
number of messages, on a patient page a number of readings. The data is outdated from the moment at
which the database has a later position. A separate connection observes the database.
"""

import math
import re
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import mysql.connector

from wire.database import connect

EVERY = 0.2  # seconds between observations
LIMIT = 60.0  # seconds
QUERIES = {
    "clock": "SELECT TIMESTAMPDIFF(SECOND, '2000-01-01', MAX(measured_at)) FROM readings",
    "seq": "SELECT MAX(seq) FROM positions",
    "stays": "SELECT pat_id, COUNT(*) FROM readings GROUP BY pat_id",
}
# What a page shows: the text of its age, its state, and its position.
SHOWN = """() => {
    const text = (name) => document.querySelector(`[data-text="${name}"]`)?.textContent ?? "";
    const rows = [...document.querySelectorAll("[data-list=vital] [data-text=n]")];
    return {
        age: document.getElementById("asof").textContent,
        link: document.body.dataset.link ?? "",
        state: document.body.dataset.state,
        late: document.body.hasAttribute("data-late"),
        clock: `${text("day")} ${text("clock")}`,
        seq: text("stored.total"),
        n: rows.map((row) => row.textContent),
    };
}"""


class Stored:
    """Observes the positions of the database in a thread. Keys: `clock`, `seq`, and the `pat_id` of
    each patient.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._seen: dict[object, list[tuple[float, float]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Stored":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            with suppress(mysql.connector.Error), closing(connect(self._url)) as connection:
                while not self._stop.wait(EVERY):
                    self._observe(connection)

    def _observe(self, connection: Any) -> None:
        cursor = connection.cursor()
        for name, sql in QUERIES.items():
            cursor.execute(sql)
            rows = cursor.fetchall()
            at = time.monotonic()
            for key, value in rows if name == "stays" else [(name, rows[0][0])]:
                found = self._seen.setdefault(key, [])
                if value is not None and (not found or found[-1][1] < value):
                    found.append((at, float(value)))
        connection.commit()

    def last(self, key: object) -> float:
        """The last observed position; 0 if none was observed."""
        return self._seen[key][-1][1] if self._seen.get(key) else 0.0

    def outdated_since(self, key: object, position: float) -> float:
        """The first time at which a later position was seen; infinite if there is none."""
        seen = self._seen.get(key, [])
        index = bisect_right(seen, position, key=lambda one: one[1])
        return seen[index][0] if index < len(seen) else math.inf


@dataclass(frozen=True)
class Look:
    """One look at a page. at: the monotonic time. said: the age that the page shows, in seconds.
    key, position: the position of its data, see `Stored`."""

    page: str
    at: float
    said: float
    shown: dict[str, Any]
    key: object
    position: float

    def older_than_said(self, stored: Stored) -> float:
        """Seconds by which the data is older than the page says; negative if it is younger."""
        return max(0.0, self.at - stored.outdated_since(self.key, self.position)) - self.said


@dataclass
class Looks:
    """Open pages by name: `ward`, `pipeline`, or the `pat_id` of a patient."""

    pages: dict[str, Any]
    looks: list[Look] = field(default_factory=list)

    def look(self) -> None:
        """Looks at each page once."""
        for name, page in self.pages.items():
            at = time.monotonic()
            shown = page.evaluate(SHOWN)
            key, position = _position(name, shown)
            if position is not None:
                self.looks.append(Look(name, at, age(shown["age"]), shown, key, position))

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: True) -> None:
        """Looks at all pages for some time, and then until the condition is true."""
        began = time.monotonic()
        while time.monotonic() - began < seconds or not until():
            assert time.monotonic() - began < LIMIT, "the condition did not come true"
            self.look()
            time.sleep(EVERY)


def _position(name: str, shown: dict[str, Any]) -> tuple[object, float | None]:
    if name == "pipeline":
        return "seq", float(number) if (number := _digits(shown["seq"])) else None
    if name == "ward":
        text = shown["clock"].partition(" ")[2]
        with suppress(ValueError):
            at = datetime.strptime(text, "%d %b %Y %H:%M").replace(tzinfo=UTC)
            return "clock", (at - datetime(2000, 1, 1, tzinfo=UTC)).total_seconds()
        return "clock", None
    return int(name), sum(float(_digits(n)) for n in shown["n"]) if shown["n"] else None


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def age(text: str) -> float:
    """The seconds in `as of 2 min 5 s ago`; 0 if the page shows no age.

    >>> age("as of 2 min 5 s ago"), age("as of 7 s ago"), age("")
    (125.0, 7.0, 0.0)
    """
    units = {"h": 3600, "min": 60, "s": 1}
    return float(sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+) (h|min|s)\b", text)))


def worst(looks: list[Look], stored: Stored) -> dict[str, float]:
    """The largest `older_than_said` of each kind of page: `ward`, `pipeline` and `patient`."""
    found: dict[str, float] = {}
    for look in looks:
        kind = look.page if look.page in ("ward", "pipeline") else "patient"
        found[kind] = max(found.get(kind, -math.inf), look.older_than_said(stored))
    return found
