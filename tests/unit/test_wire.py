"""Tests the package `wire`: settings, messages, keys, and the consistency of its tables."""

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import logs, settings
from wire.batches import partition_of
from wire.keys import JobId
from wire.messages import (
    Acknowledgement,
    Admission,
    Discharge,
    Message,
    Outcome,
    Reading,
    Rejected,
    Withdrawal,
    decode,
)
from wire.settings import SettingError
from wire.stream_clock import stream_clock
from wire.tables import KEYS, TABLES, columns
from wire.vitals import VITALS, canonical, implausible


class Settings(msgspec.Struct, frozen=True):
    port: Annotated[settings.Port, "port to listen on"] = msgspec.field(
        name="SOME_PORT", default=8080
    )
    rate: settings.Rate = 50.0
    timeout: settings.Seconds = 2.0
    partitions: settings.Partitions = 2
    folder: Path = Path("patient_data")
    redis_url: settings.RedisUrl = settings.RedisUrl("redis://127.0.0.1:6379/0")
    database_url: settings.DatabaseUrl = settings.DatabaseUrl("sqlite:///var/icu.sqlite")
    model_url: settings.HttpUrl = settings.HttpUrl("http://127.0.0.1:5000")
    password_file: settings.SecretFile = settings.SecretFile("")
    allowed_hosts: settings.HostNames = settings.HostNames()
    log_level: settings.LogLevel = settings.LogLevel("INFO")
    log_format: settings.LogFormat = "text"


class TestSettings:
    def test_unset_and_empty_variables_have_their_defaults(self) -> None:
        assert settings.read(Settings, {"SOME_PORT": "", "OTHER": "x"}) == Settings()

    def test_valid_settings_are_converted(self, tmp_path: Path) -> None:
        secret = tmp_path / "password"
        secret.write_text("s3cret\n")
        read = settings.read(
            Settings,
            {
                "SOME_PORT": "9",
                "RATE": "0.5",
                "FOLDER": "my data",
                "REDIS_URL": "unix:///a folder/#50%25?/redis.sock",
                "DATABASE_URL": "sqlite:////a folder/#50%25?/icu.sqlite",
                "MODEL_URL": "https://model.example.org/",
                "PASSWORD_FILE": str(secret),
                "ALLOWED_HOSTS": "Ward.example.org, wall",
                "LOG_LEVEL": "debug",
                "LOG_FORMAT": "json",
            },
        )
        assert (read.port, read.rate, read.folder) == (9, 0.5, Path("my data"))
        assert read.redis_url == "unix:///a folder/#50%25?/redis.sock"
        assert read.database_url == "sqlite:////a folder/#50%25?/icu.sqlite"
        assert read.model_url == "https://model.example.org"
        assert read.password_file.secret == "s3cret"  # noqa: S105
        assert read.allowed_hosts == ("ward.example.org", "wall")
        assert (read.log_level, read.log_format) == ("DEBUG", "json")

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            *(("SOME_PORT", value) for value in ("x", "-1", "65536", "1.5", "٣x")),
            *(("RATE", value) for value in ("x", "-1", "nan", "inf")),
            *(("TIMEOUT", value) for value in ("0", "-1", "nan", "3600")),
            *(("PARTITIONS", value) for value in ("0", "-2", "129", "two")),
            *(("REDIS_URL", value) for value in ("http://h:1", "redis://", "redis://h:x/0")),
            *(("DATABASE_URL", value) for value in ("postgres://h/d", "mysql://h:0/d", "sqlite:")),
            *(("MODEL_URL", value) for value in ("h:80", "http://", "ftp://h")),
            *(("ALLOWED_HOSTS", value) for value in ("a b/c", "é.example.org")),
            ("PASSWORD_FILE", "/no/such/file"),
            ("LOG_LEVEL", "LOUD"),
            ("LOG_FORMAT", "xml"),
        ],
    )
    def test_an_invalid_setting_is_reported_in_one_line_with_its_name(
        self, key: str, value: str
    ) -> None:
        with pytest.raises(SettingError) as raised:
            settings.read(Settings, {key: value})
        text = str(raised.value)
        assert text.startswith(f"{key}={value}: ")
        assert "\n" not in text
        assert raised.value.__suppress_context__

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("REDIS_URL", "redis://:s3cret/x@h:6379/0"),
            ("REDIS_URL", "redis://me:s3cret@h:x/0"),
            ("DATABASE_URL", "mysql://me:s3cret#1@h:x/tooldb"),
            ("DATABASE_URL", "mysql://me:s3cret@x@h:0/tooldb"),
            ("MODEL_URL", "ftp://me:s3cret@h"),
        ],
    )
    def test_no_error_shows_a_password(self, key: str, value: str) -> None:
        with pytest.raises(SettingError) as raised:
            settings.read(Settings, {key: value})
        assert "s3cret" not in str(raised.value)

    def test_help_lists_every_variable_with_its_default(self) -> None:
        text = settings.describe(Settings)
        for field in msgspec.structs.fields(Settings):
            assert settings.variable(field) in text
        assert "port to listen on (8080)" in text


READING = {
    "type": "reading",
    "pat_id": 17,
    "age": 63.2,
    "date_admission": "2019-02-01",
    "date_discharge": None,
    "day": "2019-02-03",
    "hour": 7,
    "parameter": "heart_rate",
    "value": 80.0,
}
STAY = {"pat_id": 17, "date_admission": "2019-02-01"}
AT = {"day": "2019-02-03", "hour": 7}


class TestMessages:
    @pytest.mark.parametrize(
        ("message", "kind"),
        [
            (READING, Reading),
            (READING | {"minute": 59, "second": 1}, Reading),
            (
                {"type": "discharge", **STAY, "age": None, "date_discharge": "2019-02-03"}
                | {"day": "2019-02-03"},
                Discharge,
            ),
            ({"type": "admission", **STAY, "age": 63, **AT, "place": "B 4"}, Admission),
            ({"type": "withdrawal", **STAY, "of": 12}, Withdrawal),
            ({"type": "outcome", **STAY, **AT, "name": "died", "value": 1}, Outcome),
            ({"type": "acknowledgement", **STAY, **AT, "author": "Ann"}, Acknowledgement),
        ],
    )
    def test_a_valid_message_is_decoded(self, message: dict[str, object], kind: type) -> None:
        decoded: Message = decode(json.dumps(message).encode())
        assert type(decoded) is kind
        for key, value in message.items():
            if key != "type":
                assert getattr(decoded, key) == value

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"type": "song"}, "malformed"),
            ({"pat_id": "17"}, "malformed"),
            ({"minute": 60}, "malformed"),
            ({"second": -1}, "malformed"),
            ({"hour": 24}, "malformed"),
            ({"value": float("nan")}, "malformed"),
            ({"parameter": " heart_rate"}, "malformed"),
            ({"parameter": "a\nb"}, "malformed"),
            ({"day": "2019-02-30"}, "dates"),
            ({"day": "2019-01-31"}, "dates"),
            ({"date_discharge": "2019-02-02"}, "dates"),
            ({"date_admission": "20190201"}, "dates"),
            ({"value": 0.0}, "implausible"),
            ({"parameter": "HR", "value": 0.0}, "implausible"),
        ],
    )
    def test_a_rejected_reading_has_a_reason_code(
        self, change: dict[str, object], code: str
    ) -> None:
        with pytest.raises(Rejected) as raised:
            decode(json.dumps(READING | change).encode())
        assert raised.value.code == code

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "withdrawal", **STAY, "of": 0},
            {"type": "withdrawal", "pat_id": 17, "date_admission": "yesterday", "of": 3},
            {"type": "outcome", **STAY, **AT, "name": "", "value": 1},
            {"type": "acknowledgement", **STAY, **AT, "author": "Ann", "snooze_hours": 13},
            {"type": "acknowledgement", **STAY, **AT, "author": "a\x00b"},
            {"type": "admission", **STAY, "age": 200, **AT},
        ],
    )
    def test_invalid_messages_of_other_types_are_rejected(self, message: dict[str, object]) -> None:
        with pytest.raises(Rejected) as raised:
            decode(json.dumps(message).encode())
        assert raised.value.code in ("malformed", "dates")

    @pytest.mark.parametrize("pat_id", [{}, {"pat_id": None}, {"pat_id": 17, "received": 3}])
    def test_data_that_the_source_could_not_use_are_rejected_with_its_reason(
        self, pat_id: dict[str, object]
    ) -> None:
        message = {"type": "unusable", "reason": "unknown unit 'furlong'"} | pat_id
        with pytest.raises(Rejected) as raised:
            decode(json.dumps(message).encode())
        assert str(raised.value) == "unknown unit 'furlong'"
        assert raised.value.code == "unusable"

    @pytest.mark.parametrize("reason", [{}, {"reason": ""}, {"reason": "x" * 256}])
    def test_unusable_data_without_a_reason_are_malformed(self, reason: dict[str, object]) -> None:
        with pytest.raises(Rejected) as raised:
            decode(json.dumps({"type": "unusable", "pat_id": 17} | reason).encode())
        assert raised.value.code == "malformed"

    def test_the_clock_of_a_message_counts_minutes_and_seconds(self) -> None:
        one = stream_clock(json.dumps(READING).encode())
        other = stream_clock(json.dumps(READING | {"minute": 1, "second": 2}).encode())
        assert one is not None
        assert other == one + 62
        assert stream_clock(b'{"type":"withdrawal"}') is None

    @pytest.mark.parametrize(
        ("kind", "hour"), [("admission", 0), ("outcome", 0), ("discharge", 24)]
    )
    def test_a_message_without_an_hour_has_the_default_hour_of_its_type(
        self, kind: str, hour: int
    ) -> None:
        clock = stream_clock(json.dumps({"type": kind, "day": "1970-01-02"}).encode())
        assert clock == 86_400 + hour * 3_600

    @given(st.binary(max_size=200))
    def test_any_bytes_are_decoded_or_rejected(self, data: bytes) -> None:
        with suppress(Rejected):
            decode(data)


class TestKeys:
    @given(
        st.text("abc-_019", min_size=1, max_size=32),
        st.integers(0, 10**4),
        st.integers(0, 10**18),
        st.integers(1, 10**4),
    )
    def test_a_job_id_can_be_parsed_again(
        self, stream: str, part: int, last: int, size: int
    ) -> None:
        job = JobId(stream, part, last, size)
        assert JobId.parse(str(job)) == job

    @pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"pat_id":"7"}', b"[7]", b"\xff"])
    def test_a_message_without_a_patient_goes_to_partition_0(self, data: bytes) -> None:
        assert partition_of(data, 7) == 0


class TestTables:
    def test_keys_are_columns_of_their_tables(self) -> None:
        assert KEYS.keys() == TABLES.keys()
        for table, keys in KEYS.items():
            assert set(keys) <= set(columns(table))


class TestVitals:
    def test_no_name_or_synonym_belongs_to_two_vitals(self) -> None:
        spellings = [s.lower() for v in VITALS.values() for s in (v.name, *v.synonyms)]
        assert len(spellings) == len(set(spellings))
        for name, vital in VITALS.items():
            assert all(canonical(spelling.upper()) == name for spelling in vital.synonyms)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *((name, 0.0) for name in ("SysABP", "DiasABP", "MAP", "NISysABP", "NIDiasABP")),
            *((name, 0.0) for name in ("NIMAP", "SBP", "DBP")),
            ("pH", 735.0),
            ("Height", 1.8),
        ],
    )
    def test_a_name_of_a_public_data_set_has_the_limits_of_its_vital(
        self, name: str, value: float
    ) -> None:
        assert implausible(name, value)

    def test_every_variable_of_the_2012_challenge_has_limits(self) -> None:
        names = (
            "Albumin ALP ALT AST Bilirubin BUN Cholesterol Creatinine DiasABP FiO2 GCS Glucose "
            "HCO3 HCT HR K Lactate Mg MAP MechVent Na NIDiasABP NIMAP NISysABP PaCO2 PaO2 pH "
            "Platelets RespRate SaO2 SysABP Temp TroponinI TroponinT Urine WBC Weight Gender "
            "Height ICUType"
        )
        assert [name for name in names.split() if not VITALS[canonical(name)].plausible] == []

    def test_limits_are_in_order_and_thresholds_have_a_source(self) -> None:
        for vital in VITALS.values():
            for limits in (vital.plausible, vital.scale):
                assert limits is None or limits[0] < limits[1]
            if vital.low is not None or vital.high is not None:
                assert vital.threshold


FORGED = ("\n", "\r\n", "\x1b[2J", "\x9b2J", "\u2028", "\x00")


@pytest.mark.parametrize("text", FORGED)
@pytest.mark.parametrize("format", ["text", "json"])
def test_a_name_cannot_forge_a_line_of_the_log(format: str, text: str) -> None:
    record = logging.LogRecord(
        *("login", logging.INFO, "x.py", 1, "audit: %s opened patient 1"),
        (f"bob{text}2031-01-01 00:00:00 INFO login: audit: eve",),
        None,
    )
    line = logs.formatter("login", format).format(record)
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_a_traceback_keeps_its_lines() -> None:
    record = logging.makeLogRecord({"msg": "failed", "exc_text": "Traceback:\n  line 1"})
    assert len(logs.formatter("tool", "text").format(record).splitlines()) == 3
