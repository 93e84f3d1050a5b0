"""Tests the seams between the services: imports, deletions, messages, features, partitions and
ports.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.settings import Settings as DashboardSettings
from embedded.programs import ROOT
from embedded.stack import PORTS, environment
from gateway.settings import Settings as GatewaySettings
from hospital.replay import Replay
from hospital.settings import Settings as HospitalSettings
from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.pipeline import synthetic
from tool.features import FeatureSet, Stay
from tool.model_client import Declaration, feature_set
from wire.batches import partition_of
from wire.messages import Discharge, Reading, decode, ordinal

SERVICES = ("hospital", "gateway", "buffer", "tool", "modelapi", "dashboard", "login")


def imported(path: Path) -> set[str]:
    """The top-level packages that a module names in its imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("service", [*SERVICES, "wire"])
def test_a_service_imports_no_other_service(service: str) -> None:
    modules = list((ROOT / service).rglob("*.py"))
    assert modules
    others = {*SERVICES, "embedded", "training", "tests", "benchmarks", "chaos"} - {service}
    wrong = {str(path): imported(path) & others for path in modules}
    assert not {path: names for path, names in wrong.items() if names}


def test_the_tool_may_delete_from_exactly_the_tables_from_which_it_deletes() -> None:
    # `python -m tool forget` and the migrations run as the user `migrator`.
    paths = {*(ROOT / "tool").rglob("*.py")} - {*(ROOT / "tool").rglob("versions/*.py")}
    code = "".join(path.read_text() for path in paths if path.name != "forget.py")
    (permitted,) = re.findall(r"for table in (.*); do", (ROOT / "tooldb/users.sh").read_text())
    assert set(re.findall(r"DELETE FROM (\w+)", code)) == set(permitted.split())


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The messages that hospital sends for a small ward."""
    folder = synthetic(tmp_path_factory.mktemp("ward"), "--patients", "4", "--days", "2")
    subprocess.run(
        [sys.executable, "-m", "hospital.preprocessing"],
        cwd=ROOT,
        env={**os.environ, "PATIENT_DATA": str(folder)},
        check=True,
        capture_output=True,
    )
    with Replay(folder, "live") as replay:
        events = [event for some in replay.events(0) for event in some]
    return [event.partition("\ndata: ")[2].strip().encode() for event in events]


def test_the_tool_accepts_all_messages_of_hospital(messages: list[bytes]) -> None:
    kinds = {type(decode(message)) for message in messages}
    assert len(messages) > 200
    assert kinds == {Reading, Discharge}


def test_the_model_api_accepts_the_features_that_it_declares(
    messages: list[bytes], tmp_path: Path
) -> None:
    app = create_app(Settings(models=ROOT / "models", model_state=tmp_path / "models.sqlite"))
    client = app.test_client()
    declaration = msgspec.json.decode(client.get("/api/model").data, type=Declaration)
    for model in (declaration.champion, *declaration.shadows):
        features: FeatureSet = feature_set(model)
        stay = Stay(features.windows, age=60.0)
        rows = []
        first = decode(messages[0])
        for message in map(decode, messages):
            if isinstance(message, Reading) and message.pat_id == first.pat_id:
                at = (ordinal(message.day) - ordinal(first.date_admission)) * 24.0 + message.hour
                stay.add(at, message.parameter, message.value)
                row = features.row(stay)
                if features.missing(row) is None:
                    rows.append(dict(zip(features.names, row, strict=True)))
        assert rows
        answer = client.post(
            f"/api/model?model={model.model}&version={model.version}",
            data=json.dumps(rows),
            content_type="application/json",
        )
        assert answer.status_code == 200, answer.text
        assert len(answer.json) == len(rows)
        assert {(p["model"], p["version"]) for p in answer.json} == {(model.model, model.version)}


@given(pat_id=st.integers(-(10**17), 10**17), partitions=st.integers(1, 64))
def test_a_replayed_message_goes_to_the_same_partition_as_before(
    pat_id: int, partitions: int
) -> None:
    """A replayed message must reach the worker that has its stay in memory."""
    message = json.dumps({"type": "reading", "pat_id": pat_id, "age": None})
    expected = partition_of(message.encode(), partitions)
    assert partition_of(message, partitions) == expected
    assert 0 <= expected < partitions


@pytest.mark.parametrize(
    "message",
    ["", "{", "{}", '{"pat_id":"7"}', '{"pat_id":7.5}', "[7]", '{"pat_id":7,"x":' + "[" * 5000],
)
def test_a_message_without_a_patient_goes_to_partition_0(message: str) -> None:
    assert partition_of(message, 7) == partition_of(message.encode(), 7) == 0


def test_default_ports_of_the_programs_equal_those_of_make_run(tmp_path: Path) -> None:
    environ = environment(tmp_path, {})
    for ports in PORTS.values():
        assert len({environ[port] for port in ports}) == len(ports)
    assert DashboardSettings().port == int(environ["DASHBOARD_PORT"])
    assert HospitalSettings().port == int(environ["HOSPITAL_PORT"])
    assert GatewaySettings().port == int(environ["GATEWAY_PORT"])
    assert GatewaySettings().mllp_port == int(environ["MLLP_PORT"])
