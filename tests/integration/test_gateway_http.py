"""Tests JSON, FHIR and the stream of a real gateway."""

import asyncio
import json
import os
import subprocess
import sys
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.log import Log
from tests.support.gateway import Running, events, gateway, oru, send_all
from tests.support.hl7_corpus import obx

TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
READING: dict[str, Any] = {
    "type": "reading",
    "pat_id": 17,
    "age": 63.2,
    "date_admission": "2026-11-27",
    "date_discharge": None,
    "day": "2026-11-27",
    "hour": 7,
    "parameter": "blood_pressure",
    "value": 118.4,
}


def coded(code: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://loinc.org", "code": code}]}


def pressure(id: str = "o1", status: str = "final", kpa: float = 16) -> dict[str, Any]:
    """A blood pressure with two components, of which one has no value."""
    return {
        "resourceType": "Observation",
        "id": id,
        "status": status,
        "code": coded("85354-9"),
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-11-27T09:00:00Z",
        "component": [
            {"code": coded("8480-6"), "valueQuantity": {"value": kpa, "code": "kPa"}},
            {"code": coded("8462-4"), "dataAbsentReason": {"text": "not performed"}},
        ],
    }


async def post(running: Running, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    async with running.http.post(running.url + path, json=body, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


def test_a_bundle_of_more_than_1000_entries_is_rejected(tmp_path: Path) -> None:
    def bundle(count: int) -> dict[str, Any]:
        entries = [{"resource": pressure(f"o{n}")} for n in range(count)]
        return {"resourceType": "Bundle", "type": "transaction", "entry": entries}

    async def run() -> tuple[int, Any, int]:
        async with gateway(tmp_path / "log", ICU_UNITS="") as running:
            status, outcome = await post(running, "/fhir", bundle(1_001))
            return status, outcome, (await post(running, "/fhir", bundle(1_000)))[0]

    status, outcome, accepted = asyncio.run(run())
    assert (status, outcome["issue"][0]["code"], accepted) == (413, "too-costly", 200)
    assert sum(event["type"] == "reading" for event in events(tmp_path / "log")) == 1_000


def test_a_bundle_has_a_response_for_each_entry_in_its_order(tmp_path: Path) -> None:
    patient = {"resourceType": "Patient", "id": "p1"}
    entries = [{"resource": each} for each in (pressure(), {"resourceType": "Device"}, patient)]

    async def run() -> tuple[int, Any]:
        async with gateway(tmp_path / "log", ICU_UNITS="") as running:
            body = {"resourceType": "Bundle", "type": "batch", "entry": entries}
            return await post(running, "/fhir", body)

    status, answer = asyncio.run(run())
    responses = [entry["response"] for entry in answer["entry"]]
    assert (status, answer["type"]) == (200, "batch-response")
    assert [response.get("location") for response in responses] == [
        *("Observation/o1", None, "Patient/p1")
    ]
    assert responses[1]["outcome"]["issue"][0]["severity"] == "information"


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        ({"resource": 5}, 400),
        ({"resource": {"resourceType": 5}}, 400),
        ({"fullUrl": "urn:uuid:1"}, 400),
        ({"request": {"method": "DELETE", "url": "Observation/o1"}}, 422),
    ],
)
def test_a_bundle_with_an_entry_that_cannot_be_used_is_not_stored(
    tmp_path: Path, entry: dict[str, Any], status: int
) -> None:
    body = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"resource": pressure()}, entry],
    }

    async def run() -> tuple[int, Any]:
        async with gateway(tmp_path / "log", ICU_UNITS="") as running:
            return await post(running, "/fhir", body)

    answered, outcome = asyncio.run(run())
    assert (answered, outcome["resourceType"]) == (status, "OperationOutcome")
    assert not events(tmp_path / "log")


def test_a_list_of_messages_has_a_result_for_each(tmp_path: Path) -> None:
    async def run() -> tuple[int, Any]:
        async with gateway(tmp_path / "log") as running:
            await post(running, "/messages", READING)
            body = [READING, {"type": "x"}, {**READING, "hour": 8}, {**READING, "hour": 99}]
            return await post(running, "/messages", body)

    status, answer = asyncio.run(run())
    assert status == 207
    assert [result["status"] for result in answer["results"]] == [200, 422, 201, 422]
    assert len(events(tmp_path / "log")) == 2


def test_readings_from_a_clock_that_is_ahead_are_rejected(tmp_path: Path) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=73)
    reading = {**READING, "day": f"{ahead:%Y-%m-%d}", "hour": 0}
    resource = {**pressure(), "effectiveDateTime": f"{ahead:%Y-%m-%dT%H:%M:%SZ}"}

    async def run() -> tuple[tuple[int, Any], int]:
        async with gateway(tmp_path / "log", ICU_UNITS="", FUTURE_HOURS="24") as running:
            answer = await post(running, "/messages", reading)
            return answer, (await post(running, "/fhir/Observation", resource))[0]

    (status, answer), accepted = asyncio.run(run())
    assert (status, answer["code"], accepted) == (422, "dates", 201)
    assert [event["type"] for event in events(tmp_path / "log")] == ["unusable"]


def test_an_idempotency_key_identifies_one_message(tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with gateway(tmp_path / "log") as running:
            key = {"Idempotency-Key": "k1"}
            bodies = (READING, READING, {**READING, "value": 99})
            return [(await post(running, "/messages", body, **key))[0] for body in bodies]

    assert asyncio.run(run()) == [201, 200, 422]
    assert len(events(tmp_path / "log")) == 1


def test_fhir_corrections_withdraw_and_a_bundle_sent_twice_counts_once(tmp_path: Path) -> None:
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": {**pressure("o2"), "subject": {"reference": "urn:uuid:1"}}},
            {
                "fullUrl": "urn:uuid:1",
                "resource": {
                    "resourceType": "Patient",
                    "identifier": [{"system": "H", "value": "P1"}],
                },
            },
        ],
    }

    async def run() -> list[int]:
        async with gateway(tmp_path / "log", ICU_UNITS="") as running:
            await send_all(running.mllp, [oru(obx())])
            steps = [
                ("/fhir/Observation", pressure()),
                ("/fhir/Observation", pressure(status="amended", kpa=17)),
                ("/fhir/Observation", pressure(status="entered-in-error", kpa=17)),
                ("/fhir", bundle),
                ("/fhir", bundle),
                ("/fhir/Observation", {"resourceType": "Observation"}),
                ("/fhir/Device", {"resourceType": "Device"}),
            ]
            return [(await post(running, path, body))[0] for path, body in steps]

    assert asyncio.run(run()) == [201, 201, 201, 200, 200, 400, 404]
    found = events(tmp_path / "log")
    assert [event["type"] for event in found] == [
        *("admission", "reading", "admission", "reading", "withdrawal", "reading", "withdrawal"),
        "reading",
    ]
    # The patient of the Bundle is the HL7 patient with the same identifier.
    assert found[-1]["pat_id"] == found[1]["pat_id"] != found[3]["pat_id"]


def stored(log: Path, *resources: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a new gateway that has received these resources."""

    async def run() -> list[int]:
        async with gateway(log, ICU_UNITS="") as running:
            paths = [f"/fhir/{resource['resourceType']}" for resource in resources]
            sent = zip(paths, resources, strict=True)
            return [(await post(running, path, body))[0] for path, body in sent]

    assert asyncio.run(run()) == [201] * len(resources)
    return events(log)


def test_an_observation_without_a_time_of_day_or_a_number_is_rejected(tmp_path: Path) -> None:
    issued = "2026-11-27T09:00:00Z"
    odd: list[dict[str, Any]] = [
        {"effectiveDateTime": "2026-11-20", "issued": issued},
        {"effectiveDateTime": "", "effectiveTiming": {}, "issued": issued},
        {"component": [{"code": coded("8867-4"), "valueRatio": {}}]},
        {"component": [], "valueBoolean": False},
        {"component": [], "valueTime": "12:00:00"},
        {"component": [], "valueDateTime": "2026-11-27"},
        {"component": [], "valuePeriod": {}},
        {"component": [], "valueInteger": 80, "dataAbsentReason": {"text": "error"}},
    ]
    found = stored(tmp_path / "log", *(pressure(f"o{n}") | each for n, each in enumerate(odd)))
    assert [event["type"] for event in found] == ["unusable"] * len(odd)


def test_two_components_of_the_same_code_are_two_readings(tmp_path: Path) -> None:
    def observation(*values: float) -> dict[str, Any]:
        heart_rate = {"code": coded("8867-4")}
        return pressure() | {
            "component": [heart_rate | {"valueQuantity": {"value": value}} for value in values]
        }

    found = stored(tmp_path / "log", observation(80, 82), observation(80, 83))
    assert [(event["type"], event.get("value"), event.get("of")) for event in found] == [
        ("admission", None, None),
        ("reading", 80, None),
        ("reading", 82, None),
        ("withdrawal", None, 3),
        ("reading", 83, None),
    ]


@pytest.mark.parametrize(("value", "type"), [("F77", "MB"), ("999-99-9999", "SS")])
def test_patients_who_share_an_insurance_number_or_a_placeholder_are_two_patients(
    tmp_path: Path, value: str, type: str
) -> None:
    shared = value, type

    def patient(id: str, number: str) -> dict[str, Any]:
        identifiers = [
            {
                "system": system,
                "value": value,
                "type": {"coding": [{"system": TYPES, "code": type}]},
            }
            for system, value, type in (("hospital", number, "MR"), ("insurer", *shared))
        ]
        return {"resourceType": "Patient", "id": id, "identifier": identifiers}

    def reading(id: str, system: str, value: str) -> dict[str, Any]:
        subject = {"identifier": {"system": system, "value": value}}
        return pressure(id) | {"subject": subject}

    found = stored(
        tmp_path / "log",
        *(patient("p1", "1"), patient("p2", "2")),
        *(reading("o1", "hospital", "1"), reading("o2", "hospital", "2")),
        pressure("o3"),  # of Patient/p1
    )
    first, second, third = (event["pat_id"] for event in found if event["type"] == "reading")
    assert first == third != second


def encounter(id: str, start: str, end: str = "", bed: str = "") -> dict[str, Any]:
    located = {"location": [{"location": {"display": bed}}]} if bed else {}
    return {
        "resourceType": "Encounter",
        "id": id,
        "status": "finished" if end else "in-progress",
        "subject": {"reference": "Patient/p1"},
        "period": {"start": start, "end": end},
        **located,
    }


def test_the_dates_of_an_encounter_include_the_whole_day(tmp_path: Path) -> None:
    found = stored(
        tmp_path / "log",
        encounter("e1", "2026-11-20"),
        encounter("e1", "2026-11-20", "2026-11-22"),
        encounter("e2", ""),
    )
    told = [(e["type"], e.get("day"), e.get("hour"), e.get("minute")) for e in found]
    assert told == [
        ("admission", "2026-11-20", 0, 0),
        ("discharge", "2026-11-22", 23, 59),
        ("unusable", None, None, None),
    ]


def test_an_earlier_encounter_that_is_sent_again_does_not_change_the_current_stay(
    tmp_path: Path,
) -> None:
    earlier = encounter("e1", "2026-11-10T08:00:00Z", "2026-11-12T08:00:00Z", "ICU 1")
    found = stored(
        tmp_path / "log",
        earlier,
        encounter("e2", "2026-11-20T08:00:00Z", bed="ICU 2"),
        earlier | {"language": "en"},
    )
    assert [(event["type"], event.get("place")) for event in found] == [
        ("admission", "ICU 1"),
        ("discharge", None),
        ("admission", "ICU 2"),
    ]


def test_the_stream_resumes_and_answers_410_for_removed_messages(tmp_path: Path) -> None:
    async def ask(running: Running, after: str) -> tuple[int, str]:
        headers = {"Last-Event-ID": after} if after else {}
        async with running.http.get(running.url + "/sub", headers=headers) as answer:
            line = await answer.content.readline() if answer.status == 200 else b""
            return answer.status, line.decode().strip()

    async def fill() -> None:
        async with gateway(tmp_path / "log") as running:
            await post(running, "/messages", [{**READING, "hour": hour} for hour in range(9)])

    async def run(stream: str) -> list[tuple[int, str]]:
        async with gateway(tmp_path / "log") as running:
            places = ("", f"{stream}-2", f"{stream}-6", "other-7", f"{stream}-99", "?")
            return [await ask(running, place) for place in places]

    asyncio.run(fill())
    log = Log(tmp_path / "log")
    stream = log.stream
    log.connection.execute("UPDATE received SET at = 0 WHERE id <= 4")
    assert log.prune(1.0)
    log.close()
    assert asyncio.run(run(stream)) == [
        (200, f"id: {stream}-5"),
        (410, ""),
        (200, f"id: {stream}-7"),
        (200, f"id: {stream}-5"),
        (400, ""),
        (400, ""),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.org"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_send_messages(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async def run() -> tuple[list[int], int]:
        async with gateway(tmp_path / "log") as running:
            found = []
            for path in ("/messages", "/fhir"):
                # A page of another site can send a form or a text without a preflight request.
                data = json.dumps(READING)
                plain = {"Content-Type": "text/plain"} | headers
                async with running.http.post(
                    running.url + path, data=data, headers=plain
                ) as answer:
                    found.append(answer.status)
            async with running.http.get(running.url + "/health") as answer:
                return found, (await answer.json())["messages"]

    assert asyncio.run(run()) == ([403, 403], 0)


OBSERVATION = {
    "resourceType": "Observation",
    "id": "a\r\nX-Header: b",
    "status": "final",
    "subject": {"reference": "Patient/1"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
    "valueQuantity": {"value": 80, "unit": "/min"},
    "effectiveDateTime": "2026-01-01T00:00:00Z",
}
TEXT = json.dumps(OBSERVATION).encode()


@pytest.mark.parametrize(
    ("path", "body", "encoding", "status"),
    [
        ("/messages", b"no gzip", "gzip", 400),
        ("/fhir", b"no gzip", "deflate", 400),
        ("/fhir/Observation", TEXT, "gzip", 400),
        ("/messages", zlib.compress(b"[" + b" " * 100_000_000 + b"]"), "deflate", 413),
        # msgspec alone would accept these, because it skips the values of unknown members.
        ("/fhir/Observation", TEXT[:-1] + b', "note": "\xff"}', "identity", 400),
        ("/fhir/Observation", TEXT[:-1] + b', "note": "\x01"}', "identity", 400),
        ("/fhir/Observation", TEXT[:-1] + b', "note": ' + b"[" * 20_000 + b"}", "identity", 400),
    ],
)
def test_a_body_that_cannot_be_read_is_an_error_and_not_stored(
    tmp_path: Path, path: str, body: bytes, encoding: str, status: int
) -> None:
    async def run() -> tuple[int, int, int]:
        async with gateway(tmp_path / "log") as running:
            headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
            async with running.http.post(running.url + path, data=body, headers=headers) as answer:
                found = answer.status
            before = Log(tmp_path / "log").committed
            # The server still answers, on this connection or on a new one.
            return found, before, (await post(running, "/messages", READING))[0]

    assert asyncio.run(run()) == (status, 0, 201)


def test_an_id_cannot_add_a_header(tmp_path: Path) -> None:
    async def run() -> None:
        async with gateway(tmp_path / "log") as running:
            url = running.url + "/fhir/Observation"
            async with running.http.post(url, data=TEXT) as answer:
                assert answer.status == 201
                assert answer.headers["Location"] == "/fhir/Observation/a%0D%0AX-Header%3A%20b"
                assert "X-Header" not in answer.headers

    asyncio.run(run())


def test_a_header_that_is_not_utf_8_does_not_stop_the_gateway(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 40)
    token = jwt.encode({"sub": "a", "exp": 2**40}, "x" * 40, "HS256").encode()
    body = json.dumps(READING).encode()

    async def status(port: int, *headers: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        size = b"Content-Length: %d" % len(body)
        head = (b"POST /messages HTTP/1.1", b"Host: localhost", size, *headers, b"", body)
        writer.write(b"\r\n".join(head))
        line = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        return int(line.split()[1])

    async def run() -> list[int]:
        key = str(tmp_path / "key")
        async with gateway(tmp_path / "log", MODEL_TOKEN_KEY_FILE=key) as running:
            port, own = int(running.url.rpartition(":")[2]), b"Authorization: Bearer " + token
            return [
                await status(port, b"Authorization: Bearer \xff"),
                await status(port, own, b"Idempotency-Key: \xff"),
                await status(port, own, b"Idempotency-Key: \xff"),
            ]

    assert asyncio.run(run()) == [401, 201, 200]

    async def agent() -> list[int]:
        async with gateway(tmp_path / "other") as running:
            port = int(running.url.rpartition(":")[2])
            return [await status(port, b"User-Agent: \xff"), await status(port)]

    assert asyncio.run(agent()) == [201, 200]


def test_a_token_is_required_if_a_key_is_set(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)

    async def run() -> list[int]:
        async with gateway(tmp_path / "log", MODEL_TOKEN_KEY_FILE=str(key)) as running:
            paths = ("/messages", "/fhir")
            found = [(await post(running, path, READING))[0] for path in paths]
            async with running.http.get(running.url + "/health") as answer:
                return [*found, answer.status]

    assert asyncio.run(run()) == [401, 401, 200]


@pytest.mark.parametrize(
    "content",
    [
        b"short",
        b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA== ward",
        b"\xef\xbb\xbf-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ\n-----END PUBLIC KEY-----\n",
        b'{"kty": "EC", "crv": "P-256", "x": "aaaaaaaaaaaaaaaaaaaaaaa", "y": "bbbbbbbbbbbbbb"}',
    ],
    ids=["too short", "OpenSSH", "byte order mark", "JWK"],
)
def test_an_invalid_token_key_is_reported_in_one_line(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env={**os.environ, "GATEWAY_LOG": str(tmp_path / "log"), "MODEL_TOKEN_KEY_FILE": str(key)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"gateway: MODEL_TOKEN_KEY_FILE={key}: ")
    assert "Traceback" not in ended.stderr
