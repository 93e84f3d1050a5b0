"""Tests the answers and the log of a real gateway that receives HL7 over MLLP."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.mllp import wrap
from tests.support.gateway import code, events, gateway, hl7, oru, send, send_all
from tests.support.hl7_corpus import adt, corpus, obx


def after(log: Path, *messages: bytes, **environ: str) -> list[dict]:
    """Sends messages one after the other, each of which must get AA; returns their events."""

    async def run() -> list[str]:
        async with gateway(log, **environ) as running:
            return await send_all(running.mllp, messages)

    assert set(asyncio.run(run())) == {"AA"}
    return events(log)


def readings(found: list[dict]) -> dict[int, list[tuple[str, str, float]]]:
    """The time, the parameter and the value of each reading that is not withdrawn, by patient."""
    gone = {event["of"] for event in found if event["type"] == "withdrawal"}
    left: dict[int, list[tuple[str, str, float]]] = {}
    for seq, event in enumerate(found, 1):
        if event["type"] == "reading" and seq not in gone:
            at = f"{event['day']} {event['hour']:02}:{event['minute']:02}:{event['second']:02}"
            row = (at, event["parameter"], event["value"])
            left.setdefault(event["pat_id"], []).append(row)
    return left


def cuts(stream: bytes) -> dict[str, list[bytes]]:
    rng = random.Random(7)
    places = sorted(rng.sample(range(1, len(stream)), 400))
    return {
        "one byte per write": [stream[i : i + 1] for i in range(len(stream))],
        "in pieces": [stream[a:b] for a, b in zip([0, *places], [*places, None], strict=True)],
        "pipelined": [stream],
    }


def test_the_log_does_not_depend_on_chunk_boundaries(tmp_path: Path) -> None:
    messages = corpus()
    stream = b"".join(map(wrap, messages))

    async def run(name: str, pieces: list[bytes]) -> list[bytes]:
        async with gateway(tmp_path / name) as running:
            return await send(running.mllp, pieces, len(messages))

    one_by_one = after(tmp_path / "clean", *messages)
    assert sum(event["type"] == "reading" for event in one_by_one) > 40
    for name, pieces in cuts(stream).items():
        answers = asyncio.run(run(name.replace(" ", "_"), pieces))
        assert [code(answer) for answer in answers] == ["AA"] * len(messages)
        assert events(tmp_path / name.replace(" ", "_")) == one_by_one


def test_repeated_messages_add_nothing(tmp_path: Path) -> None:
    messages = corpus()
    once = after(tmp_path / "once", *messages)
    assert after(tmp_path / "twice", *messages, *messages) == once


def test_the_answer_has_the_control_id_and_the_requested_acknowledgement_mode(
    tmp_path: Path,
) -> None:
    plain = oru(obx(), control="a^b c")
    enhanced = plain.replace(b"|2.5\r", b"|2.5|||AL|NE\r", 1)
    never = plain.replace(b"|2.5\r", b"|2.5|||NE|NE\r", 1)
    only_errors = plain.replace(b"|2.5\r", b"|2.5|||ER|AL\r", 1)

    async def run() -> list[bytes]:
        async with gateway(tmp_path / "log") as running:
            frames = [wrap(message) for message in (plain, enhanced, never, only_errors)]
            return await send(running.mllp, frames, 3)

    answers = asyncio.run(run())
    assert [code(answer) for answer in answers] == ["AA", "CA", "AA"]
    assert all(b"|a^b c\r" in answer for answer in answers)


@pytest.mark.parametrize("control", ["7\x1c", "7\x0b", "\x1c7"])
def test_an_answer_is_one_frame_for_any_control_id(tmp_path: Path, control: str) -> None:
    frames = [wrap(oru(obx(), control=control)), wrap(oru(obx(), control="8"))]

    async def run() -> list[bytes]:
        async with gateway(tmp_path / "log") as running:
            return await send(running.mllp, frames, 2)

    answers = asyncio.run(run())
    assert [answer.split(b"\r")[1] for answer in answers] == [b"MSA|AA|7", b"MSA|AA|8"]


def test_invalid_and_too_long_messages_are_answered_and_the_connection_continues(
    tmp_path: Path,
) -> None:
    good = oru(obx())
    long = oru("NTE|1||" + "x" * 70_000, control="long")
    pieces = [wrap(b"nonsense"), b"GET / HTTP/1.1\r\n\x1c\r", wrap(b""), wrap(long), wrap(good)]

    async def run() -> list[bytes]:
        async with gateway(tmp_path / "log", MESSAGE_MAX="65536") as running:
            return await send(running.mllp, pieces, 5)

    answers = asyncio.run(run())
    assert [code(answer) for answer in answers] == ["AR", "AR", "AR", "AR", "AA"]
    assert b"MSA|AR|long" in answers[3]


def test_an_incomplete_frame_is_answered_before_the_connection_closes(
    tmp_path: Path,
) -> None:
    async def run() -> list[bytes]:
        async with gateway(tmp_path / "log", SILENCE_MAX="0.3") as running:
            return await send(running.mllp, [b"\x0bMSH|^~\\&|MON"], 2)

    assert [code(answer) for answer in asyncio.run(run())] == ["AR"]


def test_a_failed_write_is_answered_with_ae_and_the_repeat_is_stored_once(tmp_path: Path) -> None:
    async def run() -> list[str]:
        async with gateway(tmp_path / "log") as running:
            import sqlite3

            # Another writer locks the file, so that the gateway cannot write to it.
            other = sqlite3.connect(running.log, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            first = await send_all(running.mllp, [oru(obx())])
            other.execute("ROLLBACK")
            other.close()
            return first + await send_all(running.mllp, [oru(obx())] * 2)

    assert asyncio.run(run()) == ["AE", "AA", "AA"]
    assert len(readings(events(tmp_path / "log"))) == 1


@pytest.mark.parametrize(
    ("code_", "value", "unit", "parameter", "expected"),
    [
        ("8310-5^T^LN", "98.6", "[degF]", "temperature", 37.0),
        ("8310-5^T^LN", "98.6", "MDC_DIM_FAHR", "temperature", 37.0),
        ("8480-6^S^LN", "16", "kPa", "blood_pressure", 120.009852135),
        ("2345-7^G^LN", "5.5", "mmol/L", "glucose", 99.0858),
        ("19994-3^F^LN", "40", "%", "fio2", 0.4),
        (
            "147842^MDC_ECG_HEART_RATE^MDC",
            "61",
            "264864^MDC_DIM_BEAT_PER_MIN^MDC",
            "heart_rate",
            61,
        ),
        ("X^x^L^8867-4^HR^LN", "62", "bpm", "heart_rate", 62),
        ("HR^x^L", "63", "bpm", "heart_rate", 63),
        ("NIRS^x^L", "64", "foo", "NIRS", 64),
    ],
)
def test_codes_and_units_are_converted_to_those_of_the_pipeline(
    tmp_path: Path, code_: str, value: str, unit: str, parameter: str, expected: float
) -> None:
    found = after(tmp_path / "log", oru(obx(code_, value, unit)))
    [[(_, name, number)]] = readings(found).values()
    assert (name, number) == (parameter, pytest.approx(expected, rel=1e-11))


def test_an_offset_in_the_field_takes_precedence_over_header_and_setting(tmp_path: Path) -> None:
    header = oru(obx(at="20261127100000", value="1")).replace(b"120000||", b"120000-0500||", 1)
    found = after(
        tmp_path / "log",
        oru(obx(at="20261127100000", value="2")),
        oru(obx(at="20261127100000+0000", value="3")),
        header,
        ICU_UNITS="",
    )
    [rows] = readings(found).values()
    assert {value: at[11:16] for at, _, value in rows} == {2: "10:00", 3: "11:00", 1: "16:00"}


def test_a_time_in_a_skipped_hour_moves_to_the_next_hour(tmp_path: Path) -> None:
    found = after(
        tmp_path / "log",
        adt("A01", at="20260328120000"),
        oru(obx(at="20260329015900", value="1")),
        oru(obx(at="20260329023000", value="2")),  # daylight saving skips this hour
        oru(obx(at="20260329013000+0000", value="3")),
    )
    [rows] = readings(found).values()
    assert [at for at, _, _ in rows] == [
        *("2026-03-29 01:59:00", "2026-03-29 03:30:00", "2026-03-29 03:30:00")
    ]


def test_messages_from_a_clock_that_is_ahead_are_rejected(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    times = (now + timedelta(hours=hours) for hours in (22, 26))
    soon, ahead = (f"{at.astimezone(ZoneInfo('Europe/Berlin')):%Y%m%d%H%M%S}" for at in times)
    found = after(
        tmp_path / "log",
        adt("A01", at=ahead),
        oru("OBR|1||F1", obx(at="20261127100000", value="1")),
        oru(obx(at=ahead, value="2"), obx(at=soon, value="3"), control="2"),
        oru("OBR|1||F1", obx(at=ahead, value="1", status="D"), control="3"),
        adt("A03", at=ahead),
        FUTURE_HOURS="24",
    )
    assert [event["type"] for event in found] == [
        *("unusable", "admission", "reading", "unusable", "reading", "withdrawal", "unusable")
    ]
    [rows] = readings(found).values()
    assert [value for _, _, value in rows] == [3]


def test_a_merge_by_a_clock_that_is_ahead_ends_no_stay_in_the_future(tmp_path: Path) -> None:
    found = after(
        tmp_path / "log",
        adt("A01"),
        adt("A01", patient="P5"),
        hl7("ADT^A40", "EVN|A40|20991231100000", "PID|||P1^^^H^MR", "MRG|P5^^^H^MR"),
        FUTURE_HOURS="24",
    )
    [discharge] = [event for event in found if event["type"] == "discharge"]
    assert discharge["day"] < "2099"


def test_a_transfer_begins_and_ends_a_stay(tmp_path: Path) -> None:
    found = after(
        tmp_path / "log",
        adt("A01", bed="ED^1", at="20261127080000"),
        adt("A02", bed="ICU^1^1", at="20261127090000"),
        adt("A02", bed="ICU^1^2", at="20261127091000"),
        adt("A02", bed="WARD^1", at="20261128100000"),
        adt("A12", bed="ICU^1^2", at="20261128101000"),
        adt("A03", at="20261129100000"),
    )
    told = [(event["type"], event.get("place"), event.get("date_discharge")) for event in found]
    assert told == [
        ("admission", "ICU 1 1", None),
        ("admission", "ICU 1 2", None),
        ("discharge", None, "2026-11-28"),
        ("admission", "ICU 1 2", None),
        ("discharge", None, "2026-11-29"),
    ]
    assert {event["date_admission"] for event in found} == {"2026-11-27"}


def test_a_correction_does_not_change_another_patient_of_an_order_number(tmp_path: Path) -> None:
    """Some monitors write the same number into the orders of all patients."""

    def sent(patient: str, value: str, minute: int, status: str = "F") -> bytes:
        at = f"2026112710{minute:02}00"
        order = "OBR|1||MONITOR||||20261127100000"
        return oru(order, obx(value=value, at=at, status=status), patient=patient)

    found = after(
        tmp_path / "log",
        *(sent("P1", "80", 0), sent("P2", "90", 0), sent("P2", "91", 5)),
        sent("P1", "81", 0, "C"),
        sent("P1", "82", 1, "C"),
        sent("P1", "", 9, "D"),
    )
    left = [sorted(value for _, _, value in rows) for rows in readings(found).values()]
    assert left == [[90, 91]]


def test_a_merge_moves_all_readings_including_later_ones(tmp_path: Path) -> None:
    found = after(
        tmp_path / "log",
        adt("A01"),
        oru(obx(value="1"), patient="P5"),
        hl7("ADT^A40", "PID|||P1^^^H^MR", "MRG|P5^^^H^MR"),
        oru(obx(value="2", at="20261127110000"), patient="P5"),
    )
    [rows] = readings(found).values()
    assert [value for _, _, value in rows] == [1, 2]


def test_a_cancelled_admission_withdraws_the_readings_of_the_stay(tmp_path: Path) -> None:
    found = after(tmp_path / "log", adt("A01"), oru(obx()), adt("A11"))
    assert readings(found) == {}
    assert found[-1]["type"] == "discharge"


def test_a_late_result_without_a_bed_begins_no_stay(tmp_path: Path) -> None:
    result = hl7("ORU^R01", "PID|||P1^^^H^MR", obx(at="20261124090000"))
    found = after(
        tmp_path / "log",
        adt("A01", at="20261120080000"),
        adt("A03", at="20261122080000"),
        result,
        ICU_UNITS="",
    )
    assert [event["type"] for event in found] == ["admission", "discharge", "unusable"]


def test_a_patient_without_a_known_identifier_is_rejected(tmp_path: Path) -> None:
    found = after(tmp_path / "log", oru(obx(), patient="UNKNOWN"), oru(obx(), patient="0000"))
    assert [event["type"] for event in found] == ["unusable", "unusable"]


def test_a_reading_outside_the_icu_is_rejected_and_acknowledged(tmp_path: Path) -> None:
    found = after(tmp_path / "log", oru(obx(), bed="WARD^1^1"))
    assert [event["type"] for event in found] == ["unusable"]


def test_names_leave_the_gateway_only_if_configured(tmp_path: Path) -> None:
    messages = [adt("A01"), oru(obx(kind="ST", value="Doe"))]
    assert "Doe" not in str(after(tmp_path / "no", *messages))
    [admission, *_] = after(tmp_path / "yes", *messages, KEEP_IDENTIFIERS="1")
    assert admission["identifier"] == "Doe, Jane · P1"


@pytest.mark.parametrize(
    "segment",
    [
        obx("8480-6^S^LN", "120&80", "mm[Hg]"),
        obx(at="20261120"),  # OBR-7 would be the time of another day
        obx("PH^x^L", "6.5", ""),  # pH of urine
        obx("MAP^x^L", "12", "cmH2O"),  # mean airway pressure
    ],
)
def test_a_value_that_could_be_read_wrongly_is_rejected(tmp_path: Path, segment: str) -> None:
    order = "OBR|1||F1||||20261127095500||||||||UR&Urine&HL70070"
    found = after(tmp_path / "log", oru(order, segment))
    assert [event["type"] for event in found] == ["unusable"]


def test_an_unknown_time_or_a_reset_clock_begins_no_stay(tmp_path: Path) -> None:
    segments = b"EVN|A01|20261127080000\rPID|||P2^^^H^MR\rPV1||I|ICU^1^1" + b"|" * 41
    unknown = hl7("ADT^A01").rstrip(b"\r") + b"\r" + segments + b"19000101000000\r"
    found = after(
        tmp_path / "log",
        oru(obx(at="20000101000500")),
        unknown,
        oru(obx(at="20261127090000^S"), patient="P2"),
        FUTURE_HOURS="24",
    )
    told = [(event["type"], event.get("date_admission"), event.get("hour")) for event in found]
    assert told == [
        ("unusable", None, None),
        ("admission", "2026-11-27", 8),
        ("reading", "2026-11-27", 9),
    ]


def test_a_late_transfer_neither_begins_a_stay_nor_changes_the_bed_of_another(
    tmp_path: Path,
) -> None:
    found = after(
        tmp_path / "log",
        adt("A01", at="20261110080000", visit="V1"),
        adt("A03", at="20261115080000", visit="V1"),
        adt("A02", bed="ICU^1^2", at="20261112080000"),
        adt("A01", bed="ICU^1^3", at="20261120080000", visit="V2"),
        adt("A02", bed="ICU^1^4", at="20261112090000", visit="V1"),
        adt("A01", bed="ICU^1^5", at="20261101080000", visit="V0"),
    )
    told = [(event["type"], event.get("date_admission"), event.get("place")) for event in found]
    assert told == [
        ("admission", "2026-11-10", "ICU 1 1"),
        ("discharge", "2026-11-10", None),
        ("unusable", None, None),
        ("admission", "2026-11-20", "ICU 1 3"),
        ("unusable", None, None),
    ]
