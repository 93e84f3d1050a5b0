"""Tests /health and /api/model: predictions, the declaration, and errors that name the field."""

import gzip
import json
import math
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from modelapi import champion
from modelapi.api_errors import NotServing
from modelapi.artifact import Ref
from modelapi.limits import BODY
from modelapi.registry import Registry
from modelapi.repository import Model, Repository
from modelapi.server import create_app
from modelapi.settings import Settings
from modelapi.states import StateFile
from tests.support.modelapi_server import MODELS, ROW, add_linear, copy_models
from wire.settings import SettingError, read


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    state = tmp_path_factory.mktemp("state") / "models.sqlite"
    return create_app(Settings(models=MODELS, model_state=state)).test_client()


def formula(row: Mapping[str, float | None]) -> float:
    """The probability of `formula/1`, computed without code of modelapi."""
    x = -5 + 0.002 * (row["age"] or 0) + 0.001 * (row["last_blood_pressure"] or 0)
    x += 0.03 * (row["rmean_respiration_rate"] or 0)
    x += 0.02 * (row["standard_deviation_temperature"] or 0)
    return 1 / (1 + math.exp(-x))


def post(client: FlaskClient, document: Any, query: str = "?model=formula") -> Any:
    return client.post(f"/api/model{query}", json=document)


def test_one_object_gets_one_prediction(client: FlaskClient) -> None:
    answer = post(client, ROW)
    assert answer.status_code == 200
    assert answer.json == {
        "probability": pytest.approx(formula(ROW), rel=1e-13),
        "model": "formula",
        "version": "1",
    }


def test_a_list_gets_a_list_in_the_same_order(client: FlaskClient) -> None:
    rows = [{**ROW, "age": float(age)} for age in range(100)]
    answer = post(client, rows)
    expected = [pytest.approx(formula(row), rel=1e-13) for row in rows]
    assert [each["probability"] for each in answer.json] == expected


def test_an_empty_list_gets_an_empty_list(client: FlaskClient) -> None:
    assert post(client, []).json == []


def test_ten_thousand_rows_fit_in_one_request(client: FlaskClient) -> None:
    assert len(post(client, [ROW] * 10_000).json) == 10_000


@given(
    st.lists(
        st.fixed_dictionaries(
            {name: st.floats(-1e6, 1e6) for name in list(ROW)[:3]}
            | {"standard_deviation_temperature": st.none() | st.floats(0, 100)}
        ),
        min_size=1,
        max_size=40,
    )
)
def test_a_prediction_is_bitwise_equal_in_any_batch(
    client: FlaskClient, rows: list[dict[str, float | None]]
) -> None:
    together = [each["probability"] for each in post(client, rows).json]
    assert together == [post(client, row).json["probability"] for row in rows]


def test_a_null_is_replaced_by_the_fill_value(client: FlaskClient) -> None:
    row = {**ROW, "standard_deviation_temperature": None}
    assert post(client, row).json["probability"] == pytest.approx(formula(row), rel=1e-13)


def test_all_outputs_of_a_model_are_returned(client: FlaskClient) -> None:
    row = {"respiration_rate__last": 22, "blood_pressure__last": 100, "gcs__last": None}
    answer = post(client, row, "?model=qsofa&version=2016").json
    assert (answer["score"], answer["missing"]) == (2, "gcs__last")


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"age": None}, "age", "is required"),
        ({"age": "63"}, "age", "a number or null, not a text"),
        ({"age": True}, "age", "a number or null, not a boolean"),
        ({"age": []}, "age", "a number or null, not a list"),
        ({"age": math.nan}, "age", "finite"),
        ({"age": -math.inf}, "age", "finite"),
        ({"age": 10**400}, "age", "finite"),
        ({"ages": 1}, "ages", "is not a feature of formula/1"),
        ({"model": "formula"}, "model", "?model="),
    ],
)
def test_the_rejection_of_a_wrong_value_names_the_feature(
    client: FlaskClient, change: dict[str, Any], field: str, words: str
) -> None:
    for document, where in (({**ROW, **change}, {}), ([ROW, {**ROW, **change}], {"row": 1})):
        answer = post(client, document)
        assert answer.status_code == 400
        assert answer.content_type == "application/problem+json"
        assert answer.json["field"] == field
        assert words in answer.json["detail"]
        assert {name: answer.json[name] for name in ("row",) if name in answer.json} == where


def test_the_rejection_of_a_missing_feature_names_it(client: FlaskClient) -> None:
    answer = post(client, {name: value for name, value in ROW.items() if name != "age"})
    assert (answer.status_code, answer.json["field"]) == (400, "age")
    assert "is missing" in answer.json["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"3", b"null", b'"a"', b"\xff", b"[" * 9999])
def test_an_invalid_body_is_rejected(client: FlaskClient, body: bytes) -> None:
    answer = client.post("/api/model?model=formula", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"] == answer.json["detail"] != ""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PUT", "/api/model", 405),
        ("POST", "/health", 405),
        ("POST", "/api/model?model=nobody", 404),
        ("POST", "/api/model?model=formula&version=0", 404),
        ("POST", "/api/model?version=0", 404),
        ("POST", "/api/model?model=..", 404),
        ("POST", "/api/model?modle=formula", 400),
        ("GET", "/api/model?version=1&modle=formula", 400),
    ],
)
def test_an_unknown_path_method_or_model_gets_a_problem_document(
    client: FlaskClient, method: str, path: str, status: int
) -> None:
    answer = client.open(path, method=method, json=ROW if method == "POST" else None)
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert answer.json["status"] == status
    assert {"type", "title", "detail", "error"} <= answer.json.keys()
    assert ("Allow" in answer.headers) == (status == 405)
    assert answer.json.get("field") == ("modle" if status == 400 else None)


def test_a_body_of_another_content_type_is_rejected(client: FlaskClient) -> None:
    answer = client.post("/api/model", data=json.dumps(ROW), content_type="text/plain")
    assert answer.status_code == 415
    assert answer.content_type == "application/problem+json"


def test_a_body_that_is_too_large_is_rejected_even_if_compressed(client: FlaskClient) -> None:
    plain = b" " * (BODY + 1)
    for body, headers in ((plain, {}), (gzip.compress(plain), {"Content-Encoding": "gzip"})):
        answer = client.post(
            "/api/model", data=body, headers=headers, content_type="application/json"
        )
        assert answer.status_code == 413
        assert answer.content_type == "application/problem+json"


def test_an_internal_error_is_a_problem_document_without_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(models=MODELS, model_state=tmp_path / "s.sqlite"))

    def fails(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(app.extensions["registry"]), "find", fails)
    answer = app.test_client().post("/api/model?model=formula", json=ROW)
    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    assert b"secret" not in answer.data
    assert "secret" in caplog.text


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_bodies_are_decompressed_and_responses_compressed(client: FlaskClient, pack: Any) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    answer = client.post(
        "/api/model?model=formula",
        data=pack(json.dumps([ROW] * 500).encode()),
        content_type="application/json",
        headers={"Content-Encoding": encoding, "Accept-Encoding": encoding},
    )
    assert answer.headers["Content-Encoding"] == encoding
    unpacked = (gzip.decompress if encoding == "gzip" else zlib.decompress)(answer.data)
    assert len(json.loads(unpacked)) == 500


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [("gzip", b"{}", 400), ("gzip", gzip.compress(b"{}", mtime=0)[:-9], 400), ("br", b"{}", 415)],
)
def test_a_body_that_cannot_be_decompressed_is_rejected(
    client: FlaskClient, encoding: str, body: bytes, status: int
) -> None:
    answer = client.post(
        "/api/model",
        data=body,
        content_type="application/json",
        headers={"Content-Encoding": encoding},
    )
    assert answer.status_code == status


def test_the_declaration_lists_the_features_of_the_champion(tmp_path: Path) -> None:
    models = copy_models(tmp_path, "formula")
    client = create_app(Settings(models, tmp_path / "s.sqlite")).test_client()
    answer = client.get("/api/model")
    declared = answer.json
    assert declared is not None
    assert declared["shadows"] == []
    model = declared["champion"]
    assert (model["model"], model["version"]) == ("formula", "1")
    assert model["features"] == [
        declaration("age", None, None, required=True),
        declaration("last_blood_pressure", "blood_pressure", "last", required=True),
        declaration("rmean_respiration_rate", "respiration_rate", "mean", required=True),
        declaration("standard_deviation_temperature", "temperature", "std", fill=0.0),
    ]
    again = client.get("/api/model", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def declaration(
    name: str,
    parameter: str | None,
    aggregation: str | None,
    fill: float | None = None,
    required: bool = False,
) -> dict[str, Any]:
    return {
        "name": name,
        "parameter": parameter,
        "aggregation": aggregation,
        "window_hours": None,
        "fill": fill,
        "required": required,
    }


def test_health_reports_the_champion_or_why_there_is_none(tmp_path: Path) -> None:
    models = copy_models(tmp_path, "formula")
    settings = Settings(models, tmp_path / "s.sqlite")
    assert create_app(settings).test_client().get("/health").json == {
        "status": "ok",
        "model": "formula",
        "version": "1",
    }
    (models / "formula" / "1" / "model.joblib").write_bytes(b"other")
    client = create_app(settings).test_client()
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json is not None
    assert "model.joblib: SHA-256" in answer.json["detail"]
    assert client.post("/api/model", json=ROW).status_code == 503


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry whose champion is the formula; `one` and `two` are not in use."""
    models = copy_models(tmp_path, "formula")
    add_linear(models, "one", "1", -1.0)
    add_linear(models, "two", "1", -2.0)
    states = StateFile(tmp_path / "s.sqlite", models / "default.json")
    registry = Registry(Repository(models), states)
    registry.refresh()
    return registry


def unload(registry: Registry, name: str) -> None:
    registry.states.change("unload", name, "test", lambda state: champion.unload(state, name))
    registry.refresh()


def test_a_model_that_is_unloaded_while_models_are_listed_is_not_served_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refs(now: list[Ref]) -> Iterator[Ref]:
        yield from now[:-1]
        unload(registry, "two")
        yield now[-1]

    listed = refs(registry.repository.refs())
    monkeypatch.setattr(registry.repository, "refs", lambda: listed)
    assert [model.ref.model for model in registry.idle()] == ["one"]
    monkeypatch.undo()
    with pytest.raises(NotServing, match="two is unloaded"):
        registry.find("two", "1")


def test_a_model_that_is_unloaded_while_it_is_loaded_is_not_served_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = registry.load
    other = threading.Thread(target=unload, args=(registry, "two"))

    def slow(ref: Ref) -> Model:
        if ref.model == "two":
            other.start()
            other.join(0.3)
        return load(ref)

    monkeypatch.setattr(registry, "load", slow)
    registry.find("two", "1")
    other.join()
    with pytest.raises(NotServing, match="two is unloaded"):
        registry.find("two", "1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODELS", "/nowhere"),
        ("MODEL_TOKEN_KEY_FILE", "/nowhere"),
        ("MODELAPI_PORT", "0"),
        ("MODELAPI_WORKERS", "65"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_an_invalid_setting_is_named_with_its_value(key: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"{key}={value}"):
        read(Settings, {"MODELS": str(MODELS), key: value})
