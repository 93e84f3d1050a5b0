"""Tests the alarms on the pages, and acknowledgements that a page sends to a gateway."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from dashboard.alarms import patient_alarm, rate_sentence, ward_sentence
from dashboard.app import create_app
from dashboard.beds import bed_fields
from dashboard.database import Database
from dashboard.http_services import Explanation
from dashboard.model_info import ModelInfo
from dashboard.patient import Patient, PatientReader, Why
from dashboard.rows import ModelKey, StayKey
from dashboard.settings import Settings
from dashboard.stream_clock import StreamClock
from dashboard.ward import Ward, WardReader
from tests.support import seeded_ward
from tests.support.seeded_ward import MODEL, START, STREAM, VERSION
from tool.alarms import Alarms
from tool.database import connect
from wire.alarms import Policy
from wire.settings import DatabaseUrl, HttpUrl, RedisUrl, SecretFile

KEY = ModelKey(MODEL, VERSION)
INFO = ModelInfo(KEY)
DAY = START.date().isoformat()
RULE = Policy(at=0.3, clear=0.2, silence_hours=2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Four hourly predictions of three patients; the last hour is 9 o'clock.

    Patient 1 has an alarm from 7 on, patient 2 from 7 to 8, and patient 3 has none.
    """
    found = tmp_path / "icu.sqlite"
    risks = {1: (0.1, 0.35, 0.4, 0.45), 2: (0.1, 0.5, 0.1, 0.1), 3: (0.1, 0.1, 0.2, 0.29)}
    with seeded_ward.ward(found) as made:
        made.execute("UPDATE models SET alarm = ?", msgspec.json.encode(RULE).decode())
        for pat_id in risks:
            made.add_stay(pat_id, START)
        for hour in range(4):
            at = START.replace(hour=6 + hour)
            for pat_id, values in risks.items():
                made.add_reading(pat_id, START, at, "heart_rate", 80.0 + hour, values[hour])
        made.commit()
    compute(found)
    return found


def compute(path: Path) -> None:
    with closing(connect(f"sqlite:///{path}")) as database:
        Alarms(database).compute()


def acknowledge(path: Path, snooze: float = 4.0) -> None:
    with seeded_ward.ward(path) as made:
        [(last,)] = made.connection.execute("SELECT MAX(seq) FROM positions").fetchall()
        made.seq = last + 1
        made.execute(
            "INSERT INTO acknowledgements VALUES (?, ?, 1, ?, ?, 'Ada', ?, ?)",
            *(STREAM, made.seq, DAY, MODEL, f"{DAY} 09:00:00", snooze),
        )
        made.commit()
    compute(path)


@pytest.fixture
def reads(path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{path}")) as found:
        yield found


def clock(reads: Database) -> StreamClock:
    now = reads.newest(STREAM, 10**9)
    assert now is not None
    return StreamClock(STREAM, now, ())


def ward(reads: Database) -> Ward:
    with reads.snapshot():
        return WardReader(reads).read(clock(reads), KEY, False)


def patient(reads: Database, pat_id: int) -> Patient:
    with reads.snapshot():
        reader = PatientReader(reads, StayKey(pat_id, START.date()))
        found = reader.read(clock(reads), KEY, False)
    assert found is not None
    return found


def beds(found: Ward) -> dict[int, dict[str, Any]]:
    return {
        bed.stay.key.pat_id: dict(bed_fields(bed, found, INFO, found.signs, ""))
        for bed in found.beds
    }


def test_the_ward_shows_active_alarms_and_alarms_per_patient_day(reads: Database) -> None:
    found = ward(reads)
    shown = beds(found)
    assert {pat_id: fields["alarm"] for pat_id, fields in shown.items()} == {1: "on", 2: "", 3: ""}
    assert "07:00" in shown[1]["alarm.since"]
    # There are two alarms, and three patients with three hours each.
    assert found.alarms.per_day == pytest.approx(2 / (3 * 3 / 24))
    assert found.alarms.hours == 3
    assert ward_sentence(found.alarms).startswith("1 alarm ")
    assert rate_sentence(found.alarms).startswith("5.3 ")


def test_the_ward_shows_who_acknowledged_the_alarm(path: Path, reads: Database) -> None:
    acknowledge(path)
    fields = beds(ward(reads))[1]
    assert fields["alarm"] == "seen"
    assert "Ada" in fields["alarm.by"]
    assert "13:00" in fields["alarm.by"]


def test_alarms_per_patient_day_include_a_discharged_stay_until_its_discharge(
    path: Path, reads: Database
) -> None:
    with seeded_ward.ward(path) as made:
        made.execute("UPDATE stays SET date_discharge = ? WHERE pat_id = 2", DAY)
        at = f"{DAY} 08:00:00"
        made.execute("INSERT INTO discharges VALUES (?, 100, 2, ?, ?, ?)", *(STREAM, DAY, at, at))
        made.connection.commit()
    assert ward(reads).alarms.per_day == pytest.approx(2 / ((3 + 2 + 3) / 24))


def test_a_model_without_a_rule_shows_no_alarms(path: Path, reads: Database) -> None:
    with seeded_ward.ward(path) as made:
        made.execute("UPDATE models SET alarm = NULL")
        made.connection.commit()
    found = ward(reads)
    assert ward_sentence(found.alarms) == rate_sentence(found.alarms) == ""
    assert {fields["alarm"] for fields in beds(found).values()} == {""}


def test_a_patient_page_marks_and_explains_alarms(path: Path, reads: Database) -> None:
    acknowledge(path)
    found = patient(reads, 1)
    assert found.raised is not None
    assert found.raised.probability == 0.35
    explanation = Explanation(0.0, {"heart_rate__last": 0.5, "age": -0.2}, "exact", "log odds")
    fields = patient_alarm(found, INFO, Why(found.raised, explanation))
    assert fields["alarm"] == "seen"
    assert [kind for _, kind in fields["alarm.marks"]] == ["raise", "acknowledge"]
    assert "07:00" in fields["alarm.text"]
    assert "35\N{NO-BREAK SPACE}%" in fields["alarm.text"]
    assert "Heart rate" in fields["alarm.why"]
    assert "Age" not in fields["alarm.why"]


def test_a_patient_page_shows_the_last_alarm_after_its_end(reads: Database) -> None:
    fields = patient_alarm(patient(reads, 2), INFO, None)
    assert fields["alarm"] == ""
    assert [kind for _, kind in fields["alarm.marks"]] == ["raise", "clear"]
    assert "08:00" in fields["alarm.text"]
    assert patient_alarm(patient(reads, 3), INFO, None)["alarm.marks"] == []


class Gateway:
    """A stub gateway, which keeps the messages that it receives."""

    def __init__(self, status: int = 201) -> None:
        self.status = status
        self.messages: list[tuple[str | None, Any]] = []

    async def post(self, request: web.Request) -> web.Response:
        self.messages.append((request.headers.get("Authorization"), await request.json()))
        return web.json_response({}, status=self.status)


FORM = {"stream": STREAM, "stay": DAY, "author": "Ada", "snooze": "4"}
OWN = {"Sec-Fetch-Site": "same-origin"}


def post(
    path: Path,
    gateway: Gateway | None,
    form: dict[str, str] | bytes,
    headers: dict[str, str] = OWN,
) -> tuple[int, str]:
    """Posts the form; returns the status, and the patient's page as it was before."""
    return posted(path, gateway, form, headers)[:2]


def posted(
    path: Path, gateway: Gateway | None, form: dict[str, str] | bytes, headers: dict[str, str]
) -> tuple[int, str, str]:
    """Like `post`, but also returns the text of the answer. A gateway with the status 0 does not
    answer.
    """

    async def run() -> tuple[int, str, str]:
        application = web.Application()
        if gateway is not None:
            application.router.add_post("/messages", gateway.post)
        async with TestServer(application) as server:
            up = gateway is None or gateway.status
            url = str(server.make_url("")) if up else "http://127.0.0.1:9"
            (path.parent / "token").write_text("secret\n")
            settings = Settings(
                database_url=DatabaseUrl(f"sqlite:///{path}"),
                redis_url=RedisUrl(f"unix://{path}.sock"),
                hospital_url=HttpUrl("http://127.0.0.1:9"),
                model_url=HttpUrl("http://127.0.0.1:9"),
                acknowledge_url=HttpUrl(url if gateway else ""),
                acknowledge_token_file=SecretFile(str(path.parent / "token")),
            )
            async with TestClient(TestServer(create_app(settings))) as client:
                known = {name: headers[name] for name in ("X-User",) if name in headers}
                async with client.get("/patients/1", headers=known) as answer:
                    page = await answer.text()
                address = "/patients/1/acknowledge"
                async with client.post(
                    address, data=form, headers=headers, allow_redirects=False
                ) as answer:
                    return answer.status, page, await answer.text()

    return asyncio.run(run())


def test_the_list_of_patients_marks_alarms_and_can_show_only_these(path: Path) -> None:
    settings = Settings(
        database_url=DatabaseUrl(f"sqlite:///{path}"),
        redis_url=RedisUrl(f"unix://{path}.sock"),
        hospital_url=HttpUrl("http://127.0.0.1:9"),
        model_url=HttpUrl("http://127.0.0.1:9"),
    )

    async def run() -> list[str]:
        pages = []
        async with TestClient(TestServer(create_app(settings))) as client:
            for query in ("", "?show=alarm"):
                async with client.get(f"/patients{query}") as answer:
                    pages.append(await answer.text())
        return pages

    everybody, ringing = asyncio.run(run())
    assert len(re.findall("<tr data-state", everybody)) == 3
    assert re.findall('class="alarm" data-state="([a-z]*)"', everybody) == ["on"]
    assert re.findall(r'<tr data-state.*?href="/patients/(\d+)', ringing, re.DOTALL) == ["1"]


def test_an_acknowledgement_becomes_a_message_with_the_streams_time(path: Path) -> None:
    gateway = Gateway()
    status, page = post(path, gateway, FORM)
    assert status == 303
    assert 'action="/patients/1/acknowledge"' in page
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="(.*?)">', page)
    assert dict(hidden) == {"stream": STREAM, "stay": DAY}
    assert gateway.messages == [
        (
            "Bearer secret",
            {
                **{"type": "acknowledgement", "pat_id": 1, "date_admission": DAY},
                **{"author": "Ada", "day": DAY, "hour": 9, "minute": 0, "second": 0},
                **{"model": MODEL, "snooze_hours": 4.0},
            },
        )
    ]


def test_a_user_who_has_logged_in_acknowledges_in_no_other_name(path: Path) -> None:
    gateway = Gateway()
    status, page = post(path, gateway, FORM | {"author": "Bea"}, OWN | {"X-User": "ada"})
    assert status == 303
    assert [message["author"] for _, message in gateway.messages] == ["ada"]
    assert 'name="author"' not in page


def test_without_a_gateway_the_pages_are_read_only(path: Path) -> None:
    status, page = post(path, None, FORM)
    assert status == 404
    assert '<form class="acknowledge"' not in page


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        ({"author": ""}, OWN, 400),
        ({"snooze": "13"}, OWN, 400),
        ({"snooze": "soon"}, OWN, 400),
        ({"stay": "yesterday"}, OWN, 400),
        # The page was opened before the source began this stream.
        ({"stream": "5eed0000"}, OWN, 409),
        ({}, {"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, {"Origin": "http://evil.example.org"}, 403),
    ],
)
def test_a_form_that_is_invalid_or_of_another_site_sends_nothing(
    path: Path, form: dict[str, str], headers: dict[str, str], status: int
) -> None:
    gateway = Gateway()
    assert post(path, gateway, FORM | form, headers)[0] == status
    assert gateway.messages == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"stay=%ff", {}, 400),
        (b"stay=\xff", {}, 400),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400),
        (b"{}", {"Content-Type": "application/json"}, 415),
    ],
)
def test_a_form_that_cannot_be_read_sends_nothing(
    path: Path, body: bytes, headers: dict[str, str], status: int
) -> None:
    gateway = Gateway()
    sent = OWN | {"Content-Type": "application/x-www-form-urlencoded"} | headers
    assert post(path, gateway, body, sent)[0] == status
    assert gateway.messages == []


def test_an_acknowledgement_that_the_gateway_rejects_is_reported_and_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert post(path, Gateway(503), FORM)[0] == 502
    [record] = [each for each in caplog.records if each.name == "dashboard.acknowledger"]
    assert record.levelname == "WARNING"
    assert "503" in record.getMessage()


def test_a_gateway_that_cannot_be_reached_is_reported_without_its_address(path: Path) -> None:
    status, _, answer = posted(path, Gateway(0), FORM, OWN)
    assert status == 502
    assert "127.0.0.1" not in answer
