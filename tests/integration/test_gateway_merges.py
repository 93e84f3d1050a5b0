"""Tests merges and cancelled admissions of patients with many readings."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway import pending
from gateway.facts import Merged, Person
from gateway.log import Log, Received
from gateway.mllp import wrap
from gateway.ward import Ward
from tests.support.gateway import all_moved, code, events, gateway, oru, send, send_all
from tests.support.hl7_corpus import adt, merge, obx

# A task with at most AT_ONCE readings is complete when its message is stored.
MANY = 4 * pending.AT_ONCE


def history(patient: str, count: int = MANY) -> list[bytes]:
    """An admission, and messages with 100 readings each."""
    messages = [adt("A01", patient)]
    for minute in range(count // 100):
        at = f"2026112710{minute:02}00"
        segments = [obx(value=str(n), n=n, at=at).replace("||", f"|{n}|", 1) for n in range(100)]
        messages.append(oru(f"OBR|1||{patient}{minute}", *segments, patient=patient))
    return messages


def left(found: list[dict]) -> list[tuple[int, str, float]]:
    """The patient, the time and the value of each reading that is not withdrawn."""
    gone = {event["of"] for event in found if event["type"] == "withdrawal"}
    return sorted(
        (event["pat_id"], f"{event['hour']:02}:{event['minute']:02}", event["value"])
        for seq, event in enumerate(found, 1)
        if event["type"] == "reading" and seq not in gone
    )


@pytest.mark.parametrize("cause", [merge("P1", "P5"), adt("A11", "P5")], ids=["merge", "cancel"])
def test_other_senders_are_served_while_a_long_history_is_moved(
    tmp_path: Path, cause: bytes
) -> None:
    other = oru(obx(value="177"), patient="P9")

    async def run() -> list[str]:
        async with gateway(tmp_path / "log") as running:
            await send_all(running.mllp, [adt("A01"), *history("P5")])
            answers = await send(running.mllp, [wrap(cause) + wrap(other)], 2)
            await all_moved(running.log)
            return [code(answer) for answer in answers]

    assert asyncio.run(run()) == ["AA", "AA"]
    found = events(tmp_path / "log")
    [served] = [n for n, event in enumerate(found) if event.get("value") == 177]
    moved = [n for n, event in enumerate(found) if event["type"] == "withdrawal"]
    assert moved[0] < served < moved[-1]
    assert len(moved) == MANY
    numbers = {number for number, _, _ in left(found)}
    assert len(left(found)) == (MANY if cause.count(b"MRG") else 0) + 1
    assert len(numbers) == (2 if cause.count(b"MRG") else 1)


def test_a_merge_continues_after_a_restart(tmp_path: Path) -> None:
    async def fill() -> None:
        async with gateway(tmp_path / "log") as running:
            await send_all(running.mllp, [adt("A01"), *history("P5")])

    async def continue_() -> None:
        async with gateway(tmp_path / "log") as running:
            await all_moved(running.log)

    asyncio.run(fill())
    # This block does the same as a gateway that stops right after the transaction of the merge.
    with closing(Log(tmp_path / "log")) as log:
        ward = Ward(log, ("ICU",), False, lambda: "9999")
        survivor, prior = Person((("H", "P1"),)), Person((("H", "P5"),))
        log.begin()
        ward.apply(Merged(survivor, prior, "2026-11-27 18:00:00"))
        ward.end_message()
        log.add_received(Received(b"digest", time.time(), "MON", "hl7 ADT^A40", b""))
        ward.flush()
        log.flush()
        log.commit()
        assert ward.pending
    asyncio.run(continue_())
    found = events(tmp_path / "log")
    [admission, *_] = found
    assert len(left(found)) == MANY
    assert {number for number, _, _ in left(found)} == {admission["pat_id"]}


def test_messages_during_a_merge_have_the_same_result_as_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends repeats, corrections, withdrawals, a second merge and a cancelled admission."""
    number, at = MANY // 100 - 1, "20261127103000"
    order = f"OBR|1||P5{number}"
    last = [obx(value=str(n), n=n, at=at[:10] + f"{number:02}00") for n in range(100)]
    named = [text.replace("||", f"|{n}|", 1) for n, text in enumerate(last)]
    messages = [
        oru(order, *named[:10], control="again", patient="P5"),
        oru(order, named[11].replace("|11|/min", "|999|/min"), patient="P5"),
        oru(order, named[12].replace("|F|", "|D|"), patient="P5"),
        oru(order, named[13].replace("|F|", "|C|").replace(at[:12], "202611271105"), patient="P5"),
        adt("A01", "P6"),
        merge("P6", "P1"),
        oru(obx(value="555", at="20261127120000"), patient="P5"),
    ]
    cancel = [adt("A11", "P5"), adt("A01", "P1", at="20261127130000"), oru(obx(value="556"))]

    async def run(name: str, *sent: bytes) -> list[tuple[int, str, float]]:
        async with gateway(tmp_path / name) as running:
            await send_all(running.mllp, [adt("A01"), *history("P5"), merge("P1", "P5"), *sent])
            await all_moved(running.log)
        return left(events(tmp_path / name))

    during = asyncio.run(run("during", *messages))
    cancelled = asyncio.run(run("during_2", *messages, *cancel))
    monkeypatch.setattr(
        pending, "AT_ONCE", 10**9
    )  # each task is complete when its message is stored
    assert during == asyncio.run(run("after", *messages))
    assert len(during) == MANY
    assert cancelled == asyncio.run(run("after_2", *messages, *cancel))
    assert len(cancelled) == 1


def test_a_new_patient_never_gets_the_number_of_another(tmp_path: Path) -> None:
    def reading(number: int) -> dict[str, object]:
        return {
            **{"type": "reading", "pat_id": number, "age": 63, "date_admission": "2026-11-27"},
            **{"date_discharge": None, "day": "2026-11-27", "hour": 10, "value": 80},
            "parameter": "heart_rate",
        }

    async def run() -> list[str]:
        async with gateway(tmp_path / "log") as running:
            for number in (2**63 - 1, 1_000_000_003):
                async with running.http.post(
                    f"{running.url}/messages", json=reading(number)
                ) as answer:
                    assert answer.status == 201
            people = [adt("A01", "P1"), adt("A01", "P2"), merge("P1", "P2")]
            return await send_all(running.mllp, [*people, oru(obx(), patient="P3")])

    assert set(asyncio.run(run())) == {"AA"}
    with closing(sqlite3.connect(tmp_path / "log")) as connection:
        found = dict(connection.execute("SELECT id, pat_id FROM patients WHERE authority = 'H'"))
    assert found == {"P1": 1_000_000_001, "P2": 1_000_000_001, "P3": 1_000_000_004}
    assert events(tmp_path / "log")[-1]["pat_id"] == 1_000_000_004
