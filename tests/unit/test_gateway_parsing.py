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
from gateway.facts import Observed, is_unnamed
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


def test_own_codes_may_be_spelt_as_in_fhir(tmp_path: Path) -> None:
    own = tmp_path / "codes.csv"
    rows = ["http://loinc.org,1-1, heart_rate,/min,1,0", "LN, 1-2,HR ,/min,1,0"]
    own.write_text("\n".join(["system,code,parameter,unit,factor,offset", *rows]))
    codes = Codes(own)
    for code in ("1-1", "1-2"):
        found = codes.conversion([("LN", code)], "/min")
        assert found is not None
        assert found.parameter == "heart_rate"


@pytest.mark.parametrize(
    "row",
    [
        "LN,1-1,heart_rate,/min,nan,0",
        "LN,1-1,heart_rate,/min,0,0",
        "LN,1-1,heart_rate,/min,1,inf",
        "LN,,heart_rate,/min,1,0",
        "LN,1-1,,/min,1,0",
        "LN,1-1,heart_rate,/min,1",
    ],
)
def test_an_impossible_row_of_own_codes_is_an_error(tmp_path: Path, row: str) -> None:
    own = tmp_path / "codes.csv"
    own.write_text(f"system,code,parameter,unit,factor,offset\n{row}\n")
    with pytest.raises(gateway.codes.CodesError, match="line 2"):
        Codes(own)


@pytest.mark.parametrize(
    ("segments", "fillers"),
    [
        (["OBR|1||F1", "OBR|2||"], ["F1", ""]),
        (["ORC|RE||F1", "OBR|1||", "OBR|2||"], ["F1", "F1"]),
        (["ORC|RE||F1", "OBR|1||F2", "OBR|2||"], ["F2", "F1"]),
        (["ORC|RE||F1", "OBR|1||", "ORC|RE", "OBR|2||"], ["F1", ""]),
    ],
)
def test_an_order_has_no_filler_number_of_another(segments: list[str], fillers: list[str]) -> None:
    lines = ["MSH|^~\\&|LAB|H|||20260101120000+0000||ORU^R01|1|P|2.5", "PID|||7^^^H^MR"]
    for segment in segments:
        lines.append(segment)
        if segment.startswith("OBR"):
            minute = len(lines)
            lines.append(f"OBX|1|NM|8867-4^^LN||70|/min|||||F|||2026010112{minute:02}00+0000")
    facts = READER.facts(parse("\r".join(lines).encode())) or []
    sources = [fact.source for fact in facts if isinstance(fact, Observed)]
    assert ["" if is_unnamed(text) else text.rpartition("|")[2] for text in sources] == fillers
