"""Compares the answers to simple inference requests, which need no Flask, with Flask's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask, request_started
from flask.testing import FlaskClient

from modelapi.limits import BODY
from modelapi.repository import Model
from modelapi.server import create_app
from modelapi.settings import Folder, Settings
from tests.support.modelapi_server import add_linear, copy_models

LENGTH = "Inference-Header-Content-Length"
ONE = "/v2/models/formula/infer"
ALL = "/v2/infer"


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    models = copy_models(tmp_path, "formula")
    add_linear(models, "plain", "1", -1.0)
    return create_app(Settings(models=Folder(models), model_state=tmp_path / "models.sqlite"))


def matrix(rows: int = 2, width: int = 4, **members: Any) -> dict[str, Any]:
    data = np.full((rows, width), 20.0).tolist()
    features = {"name": "features", "shape": [rows, width], "datatype": "FP64", "data": data}
    return {"inputs": [features]} | members


def named(name: str, **arguments: Any) -> dict[str, Any]:
    return matrix(**arguments) | {"model_name": name}


def binary(rows: int) -> tuple[bytes, dict[str, str]]:
    values = np.full((rows, 4), 20.0).tobytes()
    features = {"name": "features", "shape": [rows, 4], "datatype": "FP64"}
    features["parameters"] = {"binary_data_size": len(values)}  # type: ignore[assignment]
    outputs = [{"name": "probability", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [features], "outputs": outputs}).encode()
    return head + values, {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}


REQUESTS: dict[str, tuple[str, Any, dict[str, str]]] = {
    "JSON": (ONE, matrix(), {}),
    "a version": ("/v2/models/formula/versions/1/infer", matrix(id="7"), {}),
    "binary": (ONE, *binary(1)),
    "a long answer": (ONE, *binary(1000)),
    "a wrong length": (ONE, binary(1)[0], {LENGTH: "99999"}),
    "several models": (ALL, {"requests": [named("formula"), named("plain", width=1)]}, {}),
    "an error of one": (ALL, {"requests": [named("formula"), named("none"), named("plain")]}, {}),
    "no requests": (ALL, {"requests": []}, {}),
    "an unknown model": ("/v2/models/none/infer", matrix(), {}),
    "an unknown output": (ONE, matrix(outputs=[{"name": "x"}]), {}),
    "a wrong shape": (ONE, matrix(width=3), {}),
    "no JSON": (ONE, b"{", {}),
    "too many rows": (
        ONE,
        matrix() | {"inputs": [matrix()["inputs"][0] | {"shape": [9**6, 4]}]},
        {},
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_simple_request_gets_the_answer_of_flask(app: Flask, name: str) -> None:
    path, body, headers = REQUESTS[name]
    assert_same(app, path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)


def test_an_internal_error_gets_the_answer_of_flask(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("secret")

    monkeypatch.setattr(Model, "predict", fail)
    answer = app.test_client().post(ONE, json=matrix())
    assert answer.status_code == 500
    assert b"secret" not in answer.data
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "example.org"}, 421),
        ({"Origin": "http://example.org"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Encoding": "br"}, 415),
    ],
)
def test_flask_checks_all_other_requests(app: Flask, headers: dict[str, str], status: int) -> None:
    headers = {"Content-Type": "application/json"} | headers
    answer = app.test_client().post(ONE, data=json.dumps(matrix()), headers=headers)
    assert answer.status_code == status


def test_flask_rejects_a_body_that_is_too_large(app: Flask) -> None:
    answer = app.test_client().post(
        ONE, data=b" " * (BODY + 1), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413


def test_flask_decodes_a_path(app: Flask) -> None:
    answer: Any = app.test_client().post("/v2/models/größe/infer", json=matrix()).json
    assert "größe" in answer["error"]


def assert_same(app: Flask, path: str, body: bytes, headers: dict[str, str]) -> None:
    """Sends the request, and then with a header that only Flask reads. Both must be answered and
    counted equally."""
    headers = {"Content-Type": "application/json"} | headers
    client, answers, counts = app.test_client(), [], []
    for more, by_flask in (({}, 0), ({"Accept-Encoding": "br"}, 1)):
        before = counted(client)
        with requests_to_flask(app) as started:
            answer = client.post(path, data=body, headers=headers | more)
        assert len(started) == by_flask
        answers.append((answer.status, sorted(answer.headers), answer.data))
        after = counted(client)
        counts.append({key: after[key] - before.get(key, 0) for key in after})
    assert answers[0] == answers[1]
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) > 0


@contextmanager
def requests_to_flask(app: Flask) -> Iterator[list[object]]:
    started: list[object] = []
    with request_started.connected_to(lambda sender: started.append(sender), app):
        yield started


def counted(client: FlaskClient) -> dict[str, float]:
    """The figures of the metrics and the statistics that do not depend on time, except those of the
    requests that read them."""
    lines = client.get("/metrics").text.splitlines()
    figures = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("icu_modelapi_re") and "_bucket" not in line and "_sum" not in line
    }
    statistics: Any = client.get("/v2/models/stats").json
    for model in statistics["model_stats"]:
        for key in ("success", "fail"):
            figures[f"{model['name']} {key}"] = model["inference_stats"][key]["count"]
        figures[f"{model['name']} rows"] = model["inference_count"]
    return figures
