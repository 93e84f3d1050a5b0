"""Tests the gateway's framing, parsing and codes, at each chunk boundary and with random input."""

import contextlib
import csv
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.codes
from gateway.codes import Codes
from gateway.hl7 import Unreadable, parse, split
from gateway.mllp import Frame, FrameReader, wrap
from gateway.reading import Reader
from tests.support.hl7_corpus import corpus
from wire.vitals import VITALS

READER = Reader(Codes(), ZoneInfo("Europe/Berlin"), "", lambda system, code: None)


def test_frames_do_not_depend_on_chunk_boundaries() -> None:
    messages = set(corpus())
    assert len(messages) >= 60
    for message in messages:
        stream = b"junk" + wrap(message) + b"\r\n" + wrap(message)
        for cut in range(len(stream) + 1):
            reader = FrameReader(1 << 20)
            frames = reader.feed(stream[:cut]) + reader.feed(stream[cut:])
            assert frames == [Frame(message), Frame(message)]
            assert not reader.partial


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_any_damaged_message_is_parsed_or_rejected(data: st.DataObject) -> None:
    message = bytearray(data.draw(st.sampled_from(corpus())))
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(message)))
        message[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    reader = FrameReader(1 << 12)
    for frame in reader.feed(b"\x0b" + bytes(message) + b"\x1c\r"):
        for content in split(frame.content):
            with contextlib.suppress(Unreadable):
                READER.facts(parse(content))


@pytest.mark.parametrize("frame", [b"BHS", b"FHS|^~\\&|x\rBHS|^~\\&\rBTS|0\rFTS|0", b"FHS\rMS"])
def test_a_batch_without_a_message_is_unreadable(frame: bytes) -> None:
    (content,) = split(frame)
    with pytest.raises(Unreadable):
        parse(content)


def test_codes_are_unique_and_map_to_known_parameters() -> None:
    path = Path(gateway.codes.__file__).with_name("codes.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["parameter"] for row in rows} <= set(VITALS)
    keys = [(row["system"], row["code"], row["unit"]) for row in rows]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "coding",
    [
        ("LN", "1922-4"),  # base deficit in arterial blood, the negative of base excess
        ("LN", "3167-4"),  # volume of 24 hour urine, not of one measurement
        ("LN", "33437-5"),  # oxygen by transcutaneous monitor, not end-tidal carbon dioxide
        ("LN", "2955-3"),  # sodium in urine, which the sender may also call NA
    ],
)
def test_a_code_of_another_measurement_is_unknown(coding: tuple[str, str]) -> None:
    for codings in ([coding, ("L", "NA")], [("L", "NA"), coding]):
        assert Codes().conversion(codings, "mmol/L") is None


@pytest.mark.parametrize(
    ("codings", "unit", "parameter", "factor"),
    [
        ([("LN", "glucose")], "mmol/L", "glucose", 18.0156),  # a name, although it claims LOINC
        ([("L", "NA")], "mmol/L", "sodium", 1),
        ([("L", "HR"), ("LN", "9279-1")], "{breath}/min", "respiration_rate", 1),
        ([("MDC", "149522")], "{beat}/min", "heart_rate", 1),
    ],
)
def test_a_standard_code_takes_precedence_over_a_name(
    codings: list[tuple[str, str]], unit: str, parameter: str, factor: float
) -> None:
    found = Codes().conversion(codings, unit)
    assert found is not None
    assert (found.parameter, found.factor) == (parameter, factor)


def test_a_code_in_an_unknown_unit_is_rejected() -> None:
    with pytest.raises(gateway.codes.UnknownUnit):
        Codes().conversion([("LN", "2345-7")], "furlong")
