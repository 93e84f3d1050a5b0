"""Tests how `make run`, `make replay` and `make token` start and end; each error is one line."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from buffer.settings import Settings as BufferSettings
from dashboard.settings import Settings as DashboardSettings
from embedded import replay
from embedded.programs import ROOT, Programs
from embedded.stack import (
    PORTS,
    CannotRun,
    check_settings,
    environment,
    free_port,
    free_ports,
    prepare,
)
from tests.support.pipeline import synthetic
from tests.support.waiting import wait_until
from tool.settings import Settings as ToolSettings
from wire.settings import read

BAD = [
    ("PATIENT_DATA", "/nowhere"),
    ("REPLAY_RATE", "fast"),
    ("REPLAY_MODE", "dead"),
    ("ALLOWED_HOSTS", "https://ward.example.org"),
    ("ALLOWED_HOSTS", "ward.example.org:443"),
    ("DATE_FORMAT", "american"),
    ("HOSPITAL_PORT", "http"),
    ("PARTITIONS", "0"),
    ("BATCH_MAX", "many"),
    ("QUEUE_MAX", "-1"),
    ("MODEL_TIMEOUT", "soon"),
    ("MODEL_TIMEOUT", "nan"),
    ("MODEL_URL", "ftp://model"),
    ("DATABASE_URL", "postgres://ward"),
    ("DATABASE_PASSWORD_FILE", "/nowhere"),
    ("TOOL_METRICS_PORT", "70000"),
    ("MODELS", "/nowhere"),
    ("MODELAPI_WORKERS", "0"),
    ("MODEL_TOKEN_KEY_FILE", "/nowhere"),
    ("HOSPITAL_URL", "hospital"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
]


SECRETS = ["REDIS_PASSWORD_FILE", "DATABASE_PASSWORD_FILE"]
WRONG_ADDRESSES = [
    ("REDIS_URL", "foo"),
    ("REDIS_URL", "redis://localhost:port/0"),
    ("REDIS_URL", "redis://localhost:99999/0"),
    ("STREAM_URL", "localhost:8080/sub"),
    ("STREAM_URL", "http://localhost:port/sub"),
    ("STREAM_URL", "http://"),
    ("DATABASE_URL", "mysql://tool@localhost:99999/tooldb"),
    ("DATABASE_URL", "sqlite:///"),
    ("MODEL_URL", "http://localhost:port"),
]
READ_BY = {
    BufferSettings: ("REDIS_URL", "STREAM_URL", "REDIS_PASSWORD_FILE"),
    ToolSettings: ("REDIS_URL", "DATABASE_URL", "MODEL_URL", *SECRETS),
    DashboardSettings: ("REDIS_URL", "DATABASE_URL", "MODEL_URL", *SECRETS),
}


@pytest.mark.parametrize("settings", READ_BY)
@pytest.mark.parametrize(("key", "value"), [*WRONG_ADDRESSES, *((k, "/nowhere") for k in SECRETS)])
def test_each_program_reports_its_invalid_addresses_and_files(
    settings: Any, key: str, value: str
) -> None:
    if key in READ_BY[settings]:
        with pytest.raises(Exception, match=re.escape(f"{key}={value}: ")) as raised:
            read(settings, {key: value})
        assert type(raised.value).__name__ == "SettingError"


@pytest.mark.parametrize("settings", READ_BY)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("REDIS_URL", "redis://default:a%2Fb@redis/0"),
        ("REDIS_URL", "rediss://[::1]:6380"),
        ("REDIS_URL", "unix:///run/redis.sock"),
        ("STREAM_URL", "https://ward.example.org/sub"),
        ("STREAM_URL", "https://ward.example.org/beds/"),
        ("DATABASE_URL", "sqlite:///var/icu.sqlite"),
        ("DATABASE_URL", "sqlite:////var/icu.sqlite"),
        ("DATABASE_URL", "mysql://tool:secret@tooldb:3306/tooldb"),
        ("MODEL_URL", "http://nginx:5080"),
    ],
)
def test_a_valid_address_is_accepted(settings: Any, key: str, value: str) -> None:
    if key in READ_BY[settings]:
        assert getattr(read(settings, {key: value}), key.lower()) == value.rstrip("/")


def test_make_run_rejects_another_redis(tmp_path: Path) -> None:
    environ = environment(tmp_path, free_ports() | {"REDIS_URL": "redis://127.0.0.1:6379/0"})
    with pytest.raises(CannotRun, match="unset REDIS_URL"):
        prepare(tmp_path, environ)


@pytest.mark.parametrize("source", PORTS)
@pytest.mark.parametrize("key", ["HOSPITAL_PORT", "GATEWAY_PORT", "MLLP_PORT", "FRONT_PORT"])
def test_a_taken_port_is_reported_only_by_a_pipeline_that_uses_it(
    tmp_path: Path, source: str, key: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = {key: str(other.getsockname()[1])}
        environ = environment(tmp_path, free_ports(source) | taken, source)
        if key in PORTS[source]:
            with pytest.raises(CannotRun, match=f"{key}={taken[key]}:"):
                prepare(tmp_path, environ, source)
        else:
            prepare(tmp_path, environ, source)


def test_unset_settings_are_valid(tmp_path: Path) -> None:
    check_settings(environment(tmp_path, {}))


@pytest.mark.parametrize(("key", "value"), BAD)
def test_an_invalid_setting_is_reported_with_its_value(
    tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(CannotRun) as raised:
        check_settings(environment(tmp_path, {key: value}))
    text = str(raised.value)
    assert key in text
    assert value.casefold() in text.casefold()
    assert len(text.splitlines()) == 1
    assert "could not convert" not in text


@pytest.mark.parametrize("what", ["run", "replay"])
def test_nothing_starts_with_an_invalid_setting(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "embedded", what],
        cwd=ROOT,
        env=os.environ | {"MODEL_TIMEOUT": "soon"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "embedded: MODEL_TIMEOUT=soon: expected seconds, above 0 and below 3600\n"


def test_a_replay_reports_where_rejected_rows_are(tmp_path: Path) -> None:
    environ = environment(tmp_path / "run", {"PATIENT_DATA": str(tmp_path)})
    result = {"messages": 1000, "stored": 980, "rejected": 20, "predictions": 960}
    result |= {"seconds": 2, "messages_per_s": 500, "rejected_rows": 0, "work_s": {"queue": 4.0}}
    result |= {"start_s": 5.0}
    assert "rejected.csv" not in replay.summary(result, environ)
    said = replay.summary(result | {"rejected_rows": 1234}, environ).splitlines()[-1]
    assert "1,234" in said
    assert said.endswith(f"see {tmp_path}/rejected.csv")


def test_a_stopped_replay_leaves_nothing_running(tmp_path: Path) -> None:
    """The replay runs in a folder of its own, because the replay of another test may use var/."""
    ward = synthetic(tmp_path / "ward", "--patients", "2", "--days", "1")
    program = f"""if True:
        from pathlib import Path
        from embedded import replay
        replay.FOLDER = Path({str(tmp_path / "run")!r})
        replay.DATABASE = Path({str(tmp_path / "sqlite")!r})
        raise SystemExit(replay.replay())
    """
    port = free_port()
    environ = {"PATIENT_DATA": str(ward), "REPLAY_RATE": "1", "HOSPITAL_PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | environ, stderr=subprocess.PIPE
    ) as running:
        wait_until(lambda: answers(port))
        running.terminate()
        assert running.wait(60) == 130
    wait_until(lambda: not answers(port))


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_replay_without_messages_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = {"stream": "5eed0001", "messages": 0, "rejected_rows": 3}
    monkeypatch.setattr(Programs, "health", lambda programs: health)
    monkeypatch.setattr(Programs, "start", lambda programs, *names: None)
    programs = Programs(tmp_path, environment(tmp_path, {"PATIENT_DATA": str(tmp_path)}))
    with pytest.raises(CannotRun, match=f"no message; 3 .* {tmp_path}/rejected.csv"):
        replay.run(programs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no key: set MODEL_TOKEN_KEY_FILE, or use --key FILE (make token KEY=FILE)"),
        (["--key", "/nowhere"], "/nowhere: No such file or directory"),
        (["--key", "/"], "/: Is a directory"),
        (["--key", "{key}", "--days", "nan"], "--days: 'nan' is not a number of days above 0"),
        (["--key", "{key}", "--days", "inf"], "--days: 'inf' is not a number of days above 0"),
        (["--key", "{key}", "--days", "-1"], "--days: '-1' is not a number of days above 0"),
        (["--key", "{key}", "--days", "soon"], "--days: 'soon' is not a number of days above 0"),
    ],
)
def test_a_token_error_is_reported_in_one_line(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    key = tmp_path / "key"
    key.write_text("a secret of at least thirty-two bytes")
    environ = {name: text for name, text in os.environ.items() if name != "MODEL_TOKEN_KEY_FILE"}
    done = subprocess.run(
        [sys.executable, "-m", "modelapi", "token", *(a.format(key=key) for a in arguments)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{said}\n"
