"""Tests that neither an error in the gateway's own code, nor a disk that fails for a moment, stops
the sender or other messages."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway import inbox, pending
from gateway.facts import Observed
from gateway.log import Log
from gateway.mllp import wrap
from gateway.readings import Readings
from tests.support.gateway import all_moved, code, events, gateway, oru, send, send_all
from tests.support.hl7_corpus import adt, merge, obx


def test_a_message_that_cannot_be_processed_is_rejected_and_the_others_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe = Readings.observe

    def faulty(self: Readings, fact: Observed, number: int) -> None:
        observe(self, fact, number)
        if fact.values[0].value in (2, 4):
            raise ZeroDivisionError

    monkeypatch.setattr(Readings, "observe", faulty)
    messages = [oru(obx(value=str(n)), patient=f"P{n}") for n in range(1, 6)]

    async def run() -> list[bytes]:
        async with gateway(tmp_path / "log") as running:
            pipelined = b"".join(map(wrap, messages))
            return await send(running.mllp, [pipelined], len(messages))

    assert [code(answer) for answer in asyncio.run(run())] == ["AA"] * 5
    found: list[dict[str, Any]] = events(tmp_path / "log")
    assert [event["value"] for event in found if event["type"] == "reading"] == [1, 3, 5]
    rejected = [event for event in found if event["type"] == "unusable"]
    assert [event["received"] for event in rejected] == [2, 4]
    assert all("ZeroDivisionError" in event["reason"] for event in rejected)


def test_after_a_bug_in_a_write_the_senders_are_answered_and_the_repeat_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, left = Log.flush, [1]

    def faulty(self: Log) -> None:
        if left and self._new_received:
            left.clear()
            raise ZeroDivisionError
        flush(self)

    monkeypatch.setattr(Log, "flush", faulty)

    async def run() -> list[str]:
        async with gateway(tmp_path / "log") as running:
            first = await send_all(running.mllp, [oru(obx())])
            return first + await send_all(running.mllp, [oru(obx())])

    assert asyncio.run(run()) == ["AE", "AA"]
    assert [event["type"] for event in events(tmp_path / "log")] == ["admission", "reading"]


def test_a_merge_that_cannot_be_completed_is_rejected_and_the_gateway_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "AT_ONCE", 1)
    left = [3]
    move = pending.Pending._move

    def faulty(self: pending.Pending, *task_and_row: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise ZeroDivisionError
        move(self, *task_and_row)

    monkeypatch.setattr(pending.Pending, "_move", faulty)
    readings = [oru(obx(at=f"2026112710{n:02}00"), patient="P5") for n in range(9)]
    sent = [adt("A01"), *readings, merge("P1", "P5")]

    async def run() -> list[str]:
        async with gateway(tmp_path / "log") as running:
            answers = await send_all(running.mllp, sent)
            await all_moved(running.log)
            return answers + await send_all(running.mllp, [oru(obx(value="99"))])

    assert set(asyncio.run(run())) == {"AA"}
    found = events(tmp_path / "log")
    assert found[-1]["value"] == 99
    [rejected] = [event for event in found if event["type"] == "unusable"]
    assert rejected["received"] == len(sent)
    assert sum(event["type"] == "withdrawal" for event in found) < 9


def failing_once(monkeypatch: pytest.MonkeyPatch, name: str, when: str = "SELECT 1") -> None:
    """Makes the next call of a method of the log fail, as if the disk did not answer. when: the
    call fails only if this statement has a result."""
    method = getattr(Log, name)

    def fail(log: Log, *arguments: object) -> object:
        if log.connection.execute(when).fetchone() is None:
            return method(log, *arguments)
        monkeypatch.setattr(Log, name, method)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Log, name, fail)


@pytest.mark.parametrize("writing", ["commit", "prune"])
def test_a_disk_that_cannot_be_read_after_a_failed_write_stops_the_gateway_only_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writing: str
) -> None:
    if writing == "prune":
        monkeypatch.setattr(inbox, "PRUNE_EVERY", 0.05)

    async def run() -> list[str]:
        async with gateway(tmp_path / "log") as running:
            answers = await send_all(running.mllp, [oru(obx(value="1"))])
            failing_once(monkeypatch, writing)
            failing_once(monkeypatch, "reread")
            if writing == "prune":
                await asyncio.sleep(0.2)
            answers += await send_all(running.mllp, [oru(obx(value="2"), patient="P2")])
            return answers + await send_all(running.mllp, [oru(obx(value="3"), patient="P3")])

    second = "AE" if writing == "commit" else "AA"
    assert asyncio.run(run()) == ["AA", second, "AA"]
    values = [event["value"] for event in events(tmp_path / "log") if event["type"] == "reading"]
    assert values == ([1, 3] if writing == "commit" else [1, 2, 3])


def test_the_last_step_of_a_merge_is_repeated_after_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "AT_ONCE", 1)
    readings = [oru(obx(at=f"2026112710{n:02}00"), patient="P5") for n in range(2)]

    async def run() -> list[str]:
        async with gateway(tmp_path / "log") as running:
            answers = await send_all(running.mllp, [adt("A01"), *readings])
            failing_once(monkeypatch, "commit", "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM pending)")
            answers += await send_all(running.mllp, [merge("P1", "P5")])
            async with asyncio.timeout(20):
                await all_moved(running.log)
            return answers

    assert set(asyncio.run(run())) == {"AA"}
    assert sum(event["type"] == "withdrawal" for event in events(tmp_path / "log")) == 2
