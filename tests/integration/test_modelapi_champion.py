"""Tests champion and shadows: promotion, rollback, the audit log, and the switch of all workers."""

import json
import math
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from embedded.programs import ROOT
from modelapi.api_errors import NotServing
from modelapi.artifact import Ref, manifest_digest
from modelapi.registry import Registry
from modelapi.repository import Repository
from modelapi.server import create_app
from modelapi.settings import Settings
from modelapi.states import StateFile
from tests.support.modelapi_server import (
    ROW,
    add_linear,
    command,
    copy_models,
    fetch,
    gunicorn,
)
from tests.support.waiting import wait_until


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = copy_models(tmp_path / "models", "formula", "news2", "qsofa")
    add_linear(models, "plain", "1", -2.0)
    add_linear(models, "plain", "2", -3.0)
    return models


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "var" / "models.sqlite"


@pytest.fixture
def registry(models: Path, state: Path) -> Registry:
    registry = Registry(Repository(models), StateFile(state, models / "default.json"))
    registry.refresh()
    return registry


def in_use(registry: Registry) -> tuple[str, ...]:
    serving = registry.serving
    return tuple(str(model.ref) for model in (serving.champion, *serving.shadows))


def run(models: Path, state: Path, line: str) -> str:
    code, out, err = command(models, state, *line.split())
    assert (code, err) == (0, "")
    return out


def run_refused(models: Path, state: Path, line: str) -> str:
    code, out, err = command(models, state, *line.split())
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    return err


def test_a_promotion_can_be_rolled_back(models: Path, state: Path, registry: Registry) -> None:
    assert in_use(registry) == ("formula/1",)
    assert run(models, state, "promote plain 1") == "champion plain/1, shadows formula/1\n"
    registry.refresh()
    assert in_use(registry) == ("plain/1", "formula/1")
    # Here, two versions of the same model are in use.
    both = "champion plain/2, shadows plain/1, formula/1\n"
    assert run(models, state, "promote plain 2") == both
    registry.refresh()
    assert in_use(registry) == ("plain/2", "plain/1", "formula/1")
    assert run(models, state, "unshadow plain/1") == "champion plain/2, shadows formula/1\n"
    assert run(models, state, "shadow plain 1") == "champion plain/2, shadows formula/1, plain/1\n"
    run(models, state, "shadow news2 2017")
    assert run(models, state, "rollback") == "champion plain/1, shadows formula/1\n"
    assert run(models, state, "rollback") == "champion formula/1, shadows none\n"
    assert run_refused(models, state, "rollback") == "there is no promotion to roll back\n"
    registry.refresh()
    assert in_use(registry) == ("formula/1",)


def test_every_change_is_in_the_history(models: Path, state: Path) -> None:
    run(models, state, "promote plain 1")
    run(models, state, "shadow qsofa 2016")
    run(models, state, "unshadow qsofa")
    run(models, state, "rollback")
    run_refused(models, state, "promote plain 9")
    audit = [line.split("\t") for line in run(models, state, "history").splitlines()]
    assert [line[2:] for line in audit] == [
        ["promote", "plain/1"],
        ["shadow", "qsofa/2016"],
        ["unshadow", "qsofa"],
        ["rollback", "formula/1"],
    ]
    with sqlite3.connect(state) as connection:
        last = connection.execute("SELECT state FROM changes ORDER BY id DESC").fetchone()
    connection.close()
    assert json.loads(last[0])["champion"] == {"model": "formula", "version": "1"}


def test_a_model_that_cannot_serve_is_not_promoted(models: Path, state: Path) -> None:
    (models / "plain" / "1" / "linear.json").write_text("{}")
    assert "linear.json: SHA-256" in run_refused(models, state, "promote plain 1")
    assert "linear.json: SHA-256" in run_refused(models, state, f"check {models / 'plain' / '1'}")
    assert not state.exists()
    assert "has no model nobody/1" in run_refused(models, state, "promote nobody 1")


def test_a_rollback_to_a_model_that_cannot_serve_is_rejected(models: Path, state: Path) -> None:
    run(models, state, "promote plain 1")
    (models / "formula" / "1" / "golden.json").write_text("[]")
    assert "golden.json: SHA-256" in run_refused(models, state, "rollback")
    assert run(models, state, "history").count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("shadow formula 1", "formula/1 is the champion"),
        ("unshadow news2", "news2 is not a shadow"),
    ],
)
def test_an_invalid_change_is_rejected(models: Path, state: Path, line: str, words: str) -> None:
    assert words in run_refused(models, state, line)


def test_the_list_shows_roles_and_invalid_models(models: Path, state: Path) -> None:
    run(models, state, "promote plain 2")
    (models / "plain" / "1" / "linear.json").write_text("{}")
    lines = run(models, state, "list").splitlines()
    assert [line.split()[:3] for line in lines[:1]] == [["formula", "1", "shadow"]]
    assert lines[2].split()[:3] == ["plain", "1", "invalid:"]
    assert lines[3].split()[:3] == ["plain", "2", "champion"]


def test_the_old_model_keeps_serving_when_the_new_one_is_invalid(
    models: Path, state: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    run(models, state, "promote plain 1")
    (models / "plain" / "1" / "linear.json").write_text("{}")
    for _ in range(3):
        registry.refresh()
    assert in_use(registry) == ("formula/1",)
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("champion plain/1 cannot be served: ")
    assert line.endswith("formula/1 remains the champion")


def test_an_invalid_shadow_does_not_block_a_promotion(
    models: Path, state: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    run(models, state, "shadow news2 2017")
    (models / "news2" / "2017" / "scorecard.json").write_text("{}")
    run(models, state, "promote plain 1")
    registry.refresh()
    assert in_use(registry) == ("plain/1", "formula/1")
    assert "shadow news2/2017 cannot be served" in caplog.text


def test_a_loaded_model_keeps_serving_after_its_files_are_damaged(
    models: Path, state: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    (models / "formula" / "1" / "manifest.json").write_text("{}")
    run(models, state, "shadow qsofa 2016")
    registry.refresh()
    assert in_use(registry) == ("formula/1", "qsofa/2016")
    assert "formula/1: the previously loaded model stays in use" in caplog.text


def test_a_model_replaced_on_disk_is_loaded_with_the_next_change(
    models: Path, state: Path, registry: Registry
) -> None:
    before = registry.find("plain", "1")
    for path in (models / "plain" / "1").iterdir():
        path.unlink()
    (models / "plain" / "1").rmdir()
    add_linear(models, "plain", "1", -4.0)
    registry.refresh()
    assert registry.find("plain", "1") is before
    run(models, state, "promote plain 1")
    registry.refresh()
    assert registry.serving.champion.digest != before.digest


def test_a_state_file_that_cannot_be_read_changes_nothing(
    models: Path, state: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    state.parent.mkdir()
    state.write_bytes(b"not a database" * 100)
    registry.refresh()
    assert in_use(registry) == ("formula/1",)
    assert f"{state}: file is not a database" in caplog.text


def test_without_a_default_nothing_is_served_and_the_reason_is_reported(
    models: Path, state: Path
) -> None:
    registry = Registry(Repository(models), StateFile(state, models / "nothing.json"))
    registry.refresh()
    with pytest.raises(NotServing, match=r"nothing\.json: No such file"):
        _ = registry.serving


def test_a_changed_default_applies_before_any_promotion(
    models: Path, state: Path, registry: Registry
) -> None:
    default = {"champion": {"model": "plain", "version": "2"}, "shadows": []}
    (models / "default.json").write_text(json.dumps(default))
    registry.refresh()
    assert in_use(registry) == ("plain/2",)


def test_without_a_version_the_one_in_use_or_the_newest_answers(
    models: Path, state: Path, registry: Registry
) -> None:
    assert registry.find("plain").ref == Ref("plain", "2")
    run(models, state, "promote plain 1")
    registry.refresh()
    assert registry.find("plain").ref == Ref("plain", "1")


def test_every_worker_follows_a_promotion_and_no_prediction_is_missing(
    models: Path, state: Path
) -> None:
    """Changes the champion back and forth under load. Each answer must come from one model only."""
    rows = [{"age": 50.0}] * 50
    expected = {"1": 1 / (1 + 2.718281828459045**1.5), "2": 1 / (1 + 2.718281828459045**2.5)}
    run(models, state, "promote plain 1")
    seen: list[Any] = []
    stop = threading.Event()

    with gunicorn(models, state) as url:

        def ask() -> None:
            while not stop.is_set():
                seen.append(fetch(f"{url}/api/model", rows)[:2])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for version in ("2", "1", "2"):
                run(models, state, f"promote plain {version}")
                # A new connection may reach either worker, so 20 connections must agree.
                wait_until(lambda version=version: champions(url) == {version})  # type: ignore[misc]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert fetch(f"{url}/api/model?model=plain", ROW)[0] == 400
        assert fetch(f"{url}/api/model?model=formula&version=1", ROW)[0] == 200
    assert {status for status, _ in seen} == {200}
    for _, predictions in seen:
        versions = {each["version"] for each in predictions}
        assert len(predictions) == 50
        assert len(versions) == 1
        assert predictions[0]["probability"] == pytest.approx(expected[versions.pop()])


def champions(url: str) -> set[str]:
    """The champion's version over several connections, which reach both workers."""
    return {fetch(f"{url}/api/model")[1]["champion"]["version"] for _ in range(20)}


def test_the_original_fields_are_answered_by_the_model_that_has_them(tmp_path: Path) -> None:
    """In the shipped state, version 1 of the trained model is the shadow of version 2."""
    client = create_app(Settings(ROOT / "models", tmp_path / "s.sqlite")).test_client()
    declared = client.get("/api/model").json
    champion, shadow = declared["champion"], declared["shadows"][0]
    assert (champion["model"], champion["version"]) == ("icu-mortality", "2")
    assert (shadow["model"], shadow["version"]) == ("icu-mortality", "1")

    original = {
        "age": 63,
        "last_blood_pressure": 118,
        "rmean_respiration_rate": 19,
        "standard_deviation_temperature": 0.2,
    }
    x = -5 + 0.002 * 63 + 0.001 * 118 + 0.03 * 19 + 0.02 * 0.2
    for rows in (original, [original]):
        answer = client.post("/api/model", json=rows).json
        found = answer[0] if isinstance(rows, list) else answer
        assert (found["model"], found["version"]) == ("formula", "1")
        assert found["probability"] == pytest.approx(1 / (1 + math.exp(-x)), rel=1e-12)

    wrong = client.post("/api/model", json=original | {"last_blood_pressure": "high"})
    assert (wrong.status_code, wrong.json["field"]) == (400, "last_blood_pressure")
    own = {feature["name"]: 1.0 for feature in champion["features"]}
    assert client.post("/api/model", json=own).json["model"] == "icu-mortality"
    del own["age"]
    assert client.post("/api/model", json=own).json["field"] == "age"
    named = client.post("/api/model?model=icu-mortality", json=original)
    assert named.status_code == 400


RULE = {"at": 0.4, "silence_hours": 6.0}


class TestAlarmRule:
    @pytest.fixture
    def models(self, models: Path) -> Path:
        add_linear(models, "ringing", "1", -2.0, alarm=RULE)
        return models

    def declared(self, registry: Registry) -> Any:
        registry.refresh()
        return json.loads(registry.serving.declaration)["champion"]["alarm"]

    def test_the_rule_of_the_manifest_is_declared(
        self, models: Path, state: Path, registry: Registry
    ) -> None:
        run(models, state, "promote plain 1")
        assert self.declared(registry) is None
        run(models, state, "promote ringing 1")
        found = self.declared(registry)
        assert found["revision"] == 1
        assert RULE.items() <= found.items()
        assert found["learned_hours"] is None

    def test_a_rule_has_the_hours_that_the_model_has_learned(
        self, models: Path, state: Path, registry: Registry
    ) -> None:
        add_linear(models, "brief", "1", -2.0, alarm=RULE, learned_hours=48.0)
        run(models, state, "promote brief 1")
        assert self.declared(registry)["learned_hours"] == 48
        run(models, state, "alarm brief 1 --at 0.5")
        found = self.declared(registry)
        assert (found["at"], found["learned_hours"]) == (0.5, 48)

    def test_a_new_rule_is_a_new_revision_in_the_history_and_changes_no_file(
        self, models: Path, state: Path, registry: Registry
    ) -> None:
        run(models, state, "promote ringing 1")
        before = manifest_digest(models / "ringing" / "1")
        registry.refresh()
        etag = registry.serving.etag
        run(models, state, "alarm ringing 1 --at 0.5 --for-hours 1")
        run(models, state, "alarm ringing 1 --clear 0.3 --again-hours 12")
        found = self.declared(registry)
        assert found == {
            **{"revision": 3, "at": 0.5, "clear": 0.3, "for_hours": 1.0},
            **{"silence_hours": 6.0, "again_hours": 12.0, "window_hours": [0.0, 48.0]},
            "learned_hours": None,
        }
        assert registry.serving.etag != etag
        assert manifest_digest(models / "ringing" / "1") == before
        history = [line.split("\t")[2:] for line in run(models, state, "history").splitlines()]
        assert [(line[0], line[1]) for line in history[1:]] == [("alarm", "ringing/1")] * 2
        assert [json.loads(line[2])["revision"] for line in history[1:]] == [2, 3]
        assert json.loads(run(models, state, "alarm ringing 1").partition(": ")[2]) == found

    def test_a_rollback_keeps_the_rules(
        self, models: Path, state: Path, registry: Registry
    ) -> None:
        run(models, state, "promote ringing 1")
        run(models, state, "promote plain 1")
        run(models, state, "alarm ringing 1 --at 0.9")
        run(models, state, "rollback")
        assert self.declared(registry)["at"] == 0.9

    @pytest.mark.parametrize(
        "line",
        [
            "alarm ringing 1 --at 1.5",
            "alarm ringing 1 --clear 0.6",
            "alarm plain 1 --clear 0.1",
            "alarm nobody 1 --at 0.5",
        ],
    )
    def test_an_invalid_rule_changes_nothing(self, models: Path, state: Path, line: str) -> None:
        run_refused(models, state, line)
        assert run(models, state, "history") == ""
        assert run(models, state, "alarm plain 1") == "plain/1: no alarm\n"

    def test_a_model_whose_manifest_has_an_invalid_rule_is_not_served(
        self, models: Path, state: Path
    ) -> None:
        folder = add_linear(models, "wrong", "1", -2.0, alarm={"at": 0.2, "clear": 0.5})
        assert "manifest.json" in run_refused(models, state, f"check {folder}")
