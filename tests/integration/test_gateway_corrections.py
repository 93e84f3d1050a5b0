"""Tests messages with many corrections, and that their cost does not grow with the history."""

import random
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway import refs
from gateway.codes import Codes
from gateway.hl7 import parse
from gateway.log import Log, Received
from gateway.reading import Reader
from gateway.ward import Ward
from tests.support.gateway import oru
from tests.support.hl7_corpus import obx

ORDER = "OBR|1||F{}"


class Gateway:
    """The parts of a gateway that turn HL7 messages into events. statements: the number of SQL
    statements so far."""

    def __init__(self, path: Path) -> None:
        self.log = Log(path)
        self._ward = Ward(self.log, (), False, lambda: "9999")
        self._reader = Reader(Codes(), ZoneInfo("UTC"), "", lambda system, code: None)
        self.statements = 0
        self.log.connection.set_trace_callback(self._count)

    def _count(self, _: str) -> None:
        self.statements += 1

    def receive(self, number: int, message: bytes) -> None:
        self.log.begin()
        for fact in self._reader.facts(parse(message)) or ():
            self._ward.apply(fact)
        self._ward.end_message()
        self.log.add_received(Received(number.to_bytes(8), 0.0, "", "", message))
        self._ward.flush()
        self.log.flush()
        self.log.commit()

    def events(self) -> list[bytes]:
        rows = self.log.connection.execute("SELECT data FROM events ORDER BY last")
        return [line for (data,) in rows for line in data.split(b"\n")]


def segment(draw: random.Random) -> str:
    return obx(
        f"{draw.choice('ABCDE')}^x^L",
        str(draw.randint(1, 4)),
        status=draw.choice("FFCCDW"),
        at=f"202611271{draw.randint(0, 3)}0000",
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_events_do_not_depend_on_the_way_that_earlier_readings_are_found(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    messages = [
        oru(ORDER.format(draw.randint(1, 2)), *(segment(draw) for _ in range(draw.randint(1, 30))))
        for _ in range(20)
    ]
    found = []
    for asked in (0, 3, 10**9):
        monkeypatch.setattr(refs, "ASKED", asked)
        running = Gateway(tmp_path / str(asked))
        for number, message in enumerate(messages):
            running.receive(number, message)
        found.append(running.events())
        running.log.close()
    assert found[0] == found[1] == found[2]


def test_thousands_of_corrections_in_one_message_take_few_statements(tmp_path: Path) -> None:
    running = Gateway(tmp_path / "log")
    segments = [obx(f"C{number}^x^L", status="C") for number in range(2_000)]
    running.receive(1, oru(ORDER.format(1), *segments))
    assert len(running.events()) == 2_001
    assert running.statements < 200
    running.log.close()
