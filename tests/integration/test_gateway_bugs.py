"""Tests that an error in the gateway's own code stops neither the sender nor other messages."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway import pending
from gateway.facts import Observed
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
