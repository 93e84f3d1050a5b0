"""Tests the Open Inference Protocol of a real server with third-party clients."""

import gzip
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from flask.testing import FlaskClient
from tritonclient.utils import InferenceServerException

from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.modelapi_server import (
    MODELS,
    ROW,
    add_linear,
    copy_models,
    fetch,
    gunicorn,
)
from tests.support.waiting import wait_until

NEWS2 = {
    "respiration_rate__last": 25.0,
    "spo2__last": 91.0,
    "fio2__last": np.nan,
    "blood_pressure__last": 90.0,
    "heart_rate__last": 131.0,
    "gcs__last": np.nan,
    "temperature__last": 35.0,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = copy_models(tmp_path_factory.mktemp("models"), "formula", "news2", "qsofa")
    for version in ("1", "2"):
        add_linear(models, "plain", version, -float(version))
    return models


@pytest.fixture(scope="module")
def url(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with gunicorn(models, tmp_path_factory.mktemp("state") / "models.sqlite") as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def flask(models: Path, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    state = tmp_path_factory.mktemp("state") / "models.sqlite"
    return create_app(Settings(models=models, model_state=state)).test_client()


def tensors(
    row: dict[str, float], rows: int = 3, datatype: str = "FP64", binary: bool = True
) -> list[triton.InferInput]:
    inputs = []
    for name, value in row.items():
        tensor = triton.InferInput(name, [rows], datatype)
        dtype = {"FP64": np.float64, "FP32": np.float32, "INT32": np.int32}[datatype]
        tensor.set_data_from_numpy(np.full(rows, value, dtype), binary_data=binary)
        inputs.append(tensor)
    return inputs


def document(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
        for name, value in row.items()
    ]
    return {"inputs": inputs, **changes}


class TestTritonClient:
    def test_server_and_models_are_ready(self, client: triton.InferenceServerClient) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("formula")
        assert client.is_model_ready("formula", "1")
        assert not client.is_model_ready("nobody")

    def test_metadata_and_configuration_describe_the_model(
        self, client: triton.InferenceServerClient
    ) -> None:
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        metadata = client.get_model_metadata("formula")
        assert [tensor["name"] for tensor in metadata["inputs"]] == list(ROW)
        assert metadata["outputs"] == [{"name": "probability", "datatype": "FP64", "shape": [-1]}]
        assert client.get_model_metadata("plain")["versions"] == ["1", "2"]
        assert metadata["parameters"]["kind"] == "sklearn"
        assert metadata["parameters"]["limits"]
        assert client.get_model_config("news2", "2017")["output"][1]["data_type"] == "TYPE_INT64"

    @pytest.mark.parametrize("packing", [None, "gzip", "deflate"])
    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("outputs", [None, True, False])
    def test_inference_accepts_binary_and_json_compressed_or_not(
        self,
        client: triton.InferenceServerClient,
        packing: str | None,
        binary_in: bool,
        outputs: bool | None,
    ) -> None:
        """Each row has a NaN. The client sends it as bytes or, in JSON, as the literal NaN."""
        row = {**ROW, "standard_deviation_temperature": np.nan}
        asked = outputs if outputs is None else [
            triton.InferRequestedOutput("probability", binary_data=outputs)
        ]  # fmt: skip
        result = client.infer(
            "formula",
            tensors(row, 2000, binary=binary_in),
            outputs=asked,
            request_id="visit 7",
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        x = -5 + 0.002 * 63.2 + 0.001 * 118.4 + 0.03 * 19.5
        expected = np.full(2000, 1 / (1 + np.exp(-x)))
        np.testing.assert_allclose(result.as_numpy("probability"), expected, rtol=1e-13)
        response = result.get_response()
        assert response["id"] == "visit 7"
        assert ("data" in response["outputs"][0]) == (outputs is False)

    @pytest.mark.parametrize("binary", [True, False])
    def test_outputs_of_every_datatype_are_returned(
        self, client: triton.InferenceServerClient, binary: bool
    ) -> None:
        asked = [
            triton.InferRequestedOutput(name, binary_data=binary)
            for name in ("missing", "score", "probability")
        ]
        result = client.infer("news2", tensors(NEWS2, 1, "FP32"), "2017", outputs=asked)
        assert result.as_numpy("score").tolist() == [15]
        assert result.as_numpy("probability").tolist() == [0.75]
        [missing] = result.as_numpy("missing").tolist()
        text = missing.decode() if isinstance(missing, bytes) else missing
        assert text == "fio2__last,gcs__last"

    def test_integers_are_accepted(self, client: triton.InferenceServerClient) -> None:
        result = client.infer("plain", tensors({"age": 50}, 1, "INT32"), "2")
        np.testing.assert_allclose(result.as_numpy("probability"), [1 / (1 + np.exp(1.5))])

    def test_errors_reach_the_client_as_text(self, client: triton.InferenceServerClient) -> None:
        with pytest.raises(InferenceServerException, match="age: is not an input of the model"):
            client.infer("news2", tensors(ROW))
        with pytest.raises(InferenceServerException, match="There is no model 'nobody'"):
            client.infer("nobody", tensors(ROW))
        with pytest.raises(InferenceServerException, match="age: is required"):
            client.infer("formula", tensors({**ROW, "age": np.nan}))

    def test_unload_and_load_reach_every_worker(
        self, url: str, client: triton.InferenceServerClient
    ) -> None:
        def ready() -> set[bool]:
            # Each connection is new, so that both workers answer.
            return {fetch(f"{url}/v2/models/qsofa/ready")[0] == 200 for _ in range(20)}

        assert ready() == {True}
        client.unload_model("qsofa")
        wait_until(lambda: ready() == {False})
        states = {each["name"]: each["state"] for each in client.get_model_repository_index()}
        assert (states["qsofa"], states["formula"]) == ("UNAVAILABLE", "READY")
        client.load_model("qsofa")
        wait_until(lambda: ready() == {True})
        with pytest.raises(InferenceServerException, match="formula is in use"):
            client.unload_model("formula")
        with pytest.raises(InferenceServerException, match="from the repository"):
            client.load_model("qsofa", config="{}")

    def test_statistics_are_listed_per_model(self, client: triton.InferenceServerClient) -> None:
        [stats] = client.get_inference_statistics("news2", "2017")["model_stats"]
        assert (stats["name"], stats["version"]) == ("news2", "2017")
        assert len(client.get_inference_statistics()["model_stats"]) == 5


def test_statistics_count_over_all_workers(url: str) -> None:
    """Each connection is new, so both workers serve some requests."""

    def counted() -> dict[str, Any]:
        [stats] = fetch(f"{url}/v2/models/plain/versions/1/stats")[1]["model_stats"]
        return dict(stats)

    before = counted()
    infer = f"{url}/v2/models/plain/versions/1/infer"
    for _ in range(20):
        assert fetch(infer, document({"age": 50.0}))[0] == 200
        assert fetch(f"{url}/api/model?model=plain&version=1", [{"age": 50}] * 6)[0] == 200
    assert fetch(infer, document({"age": None}))[0] == 400
    after = counted()
    assert after["inference_count"] - before["inference_count"] == 20 * 7
    assert after["execution_count"] - before["execution_count"] == 40
    times = after["inference_stats"]
    assert times["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    parts = ("compute_input", "compute_infer", "compute_output")
    assert times["success"]["ns"] == sum(times[part]["ns"] for part in parts) > 0


def test_more_open_connections_than_threads_are_answered(url: str) -> None:
    """A worker has four threads, and some of them wait for the next request of a connection."""
    body = json.dumps(document({"age": 50.0})).encode()
    host = url.removeprefix("http://")
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(HTTPConnection(host))) for _ in range(20)]
        for each in connections * 3:
            each.request("POST", "/v2/models/plain/infer", body)
            answer = each.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)


@pytest.fixture
def types() -> Any:
    """The types of MLServer. They are not imported above, because each process of pytest imports
    all test modules, and this import takes seconds.
    """
    from mlserver import types

    return types


class TestMLServerTypes:
    def test_a_third_party_client_parses_our_responses(
        self, flask: FlaskClient, types: Any
    ) -> None:
        answers = {
            "/v2": types.MetadataServerResponse,
            "/v2/models/formula": types.MetadataModelResponse,
            "/v2/models/news2/versions/2017": types.MetadataModelResponse,
        }
        for path, kind in answers.items():
            answer = flask.get(path)
            assert kind.model_validate_json(answer.data).name
        index = types.RepositoryIndexResponse.model_validate_json(
            flask.post("/v2/repository/index").data
        )
        assert {item.state for item in index.root} == {"READY"}

    def test_requests_of_a_third_party_client_are_answered(
        self, flask: FlaskClient, types: Any
    ) -> None:
        request = types.InferenceRequest(
            id="7",
            inputs=[
                types.RequestInput(name=name, shape=[2, 1], datatype="FP64", data=[value, value])
                for name, value in ROW.items()
            ],
            outputs=[types.RequestOutput(name="probability")],
        )
        for path in ("infer", "explain"):
            body = request.model_dump_json() if path == "infer" else json.dumps(document(ROW))
            answer = flask.post(
                f"/v2/models/formula/{path}", data=body, content_type="application/json"
            )
            parsed = types.InferenceResponse.model_validate_json(answer.data)
            assert parsed.model_name == "formula"
        error = flask.post("/v2/models/formula/infer", json={"inputs": []})
        assert types.InferenceErrorResponse.model_validate_json(error.data).error


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"inputs": 3}, "inputs"),
        ({"inputs": [{"name": "age"}]}, "inputs[0]"),
        ({"inputs": []}, "age"),
        ({"outputs": [{"name": "nothing"}]}, "nothing"),
        (
            {"outputs": [{"name": "probability", "parameters": {"classification": 1}}]},
            "probability",
        ),
        ({"parameters": {"binary_data_output": 1}}, "parameters.binary_data_output"),
    ],
)
def test_the_error_for_an_invalid_request_names_the_member(
    flask: FlaskClient, change: dict[str, Any], field: str
) -> None:
    refused(flask, {**document(ROW), **change}, field)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "ages"}, "ages"),
        ({"name": "last_blood_pressure"}, "last_blood_pressure"),
        ({"shape": [2]}, "age"),
        ({"shape": [2], "data": [1, 2]}, "last_blood_pressure"),
        ({"shape": [1, 2]}, "age"),
        ({"shape": [-1]}, "inputs[0].shape[0]"),
        ({"shape": []}, "inputs[0].shape"),
        ({"shape": [1, 1, 1]}, "inputs[0].shape"),
        ({"shape": [10**30]}, "inputs[0].shape[0]"),
        ({"datatype": "BYTES"}, "age"),
        ({"data": ["1"]}, "age"),
        ({"data": [True]}, "age"),
        ({"data": [[1, 2]]}, "age"),
        ({"data": [[[1]]]}, "age"),
        ({"data": []}, "age"),
        ({"data": 1}, "age"),
        ({"data": [None]}, "age"),
        ({"data": [10**400]}, "age"),
        ({"data": [float("inf")]}, "age"),
        ({"parameters": {"binary_data_size": 8}}, "age"),
        ({"parameters": {"binary_data_size": -1}}, "inputs[0].parameters.binary_data_size"),
        ({"parameters": {"shared_memory_region": "x"}}, "age"),
    ],
)
def test_the_error_for_an_invalid_tensor_names_the_tensor(
    flask: FlaskClient, change: dict[str, Any], field: str
) -> None:
    asked = document(ROW)
    asked["inputs"][0] |= change
    refused(flask, asked, field)


def refused(flask: FlaskClient, asked: Any, field: str) -> None:
    # json.dumps writes infinity as `Infinity`, which is not valid JSON.
    answer = flask.post("/v2/models/formula/infer", data=json.dumps(asked))
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert answer.json["field"] == field


@pytest.mark.parametrize(
    ("size", "header", "extra", "field"),
    [
        (8, None, b"", None),
        (8, "99999", b"", "Inference-Header-Content-Length"),
        (8, "-1", b"", "Inference-Header-Content-Length"),
        (4, "right", b"", "age"),
        (8, "right", b"xy", None),
        ("8", "right", b"", "inputs[0].parameters.binary_data_size"),
    ],
)
def test_wrong_sizes_in_a_binary_request_are_errors(
    flask: FlaskClient, size: Any, header: str | None, extra: bytes, field: str | None
) -> None:
    asked = {
        "inputs": [
            {
                "name": "age",
                "shape": [1],
                "datatype": "FP64",
                "parameters": {"binary_data_size": size},
            }
        ]
    }
    head = json.dumps(asked).encode()
    length = str(len(head)) if header == "right" else header
    answer = flask.post(
        "/v2/models/plain/infer",
        data=head + np.array([50.0]).tobytes() + extra,
        headers={} if length is None else {"Inference-Header-Content-Length": length},
    )
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json.get("field") == field


def test_a_null_and_a_shape_of_one_column_are_accepted(flask: FlaskClient) -> None:
    asked = document({**ROW, "standard_deviation_temperature": None})
    for tensor in asked["inputs"]:
        tensor |= {"shape": [1, 1], "data": [tensor["data"]]}
    answer = flask.post("/v2/models/formula/infer", json=asked).json
    assert answer is not None
    assert answer["outputs"][0]["shape"] == [1]
    assert "id" not in answer


def test_the_index_lists_ready_models_and_rejects_an_invalid_filter(flask: FlaskClient) -> None:
    index = flask.post("/v2/repository/index", json={"ready": True}).json
    assert index is not None
    assert [(each["name"], each["version"]) for each in index] == [
        ("formula", "1"),
        ("news2", "2017"),
        ("plain", "1"),
        ("plain", "2"),
        ("qsofa", "2016"),
    ]
    assert flask.post("/v2/repository/index", json={"ready": 1}).status_code == 400


@pytest.mark.parametrize("path", ["index", "models/qsofa/load", "models/qsofa/unload"])
@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"x":' + b"[" * 5000, b'{"x":' * 5000])
def test_a_repository_request_without_valid_json_is_rejected(
    flask: FlaskClient, path: str, body: bytes
) -> None:
    answer = flask.post(f"/v2/repository/{path}", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert "is not JSON" in answer.text


def test_a_model_that_cannot_be_served_has_a_reason(tmp_path: Path) -> None:
    models = copy_models(tmp_path, "formula", "qsofa")
    (models / "qsofa" / "2016" / "golden.json").write_text("[]")
    flask = create_app(Settings(models, tmp_path / "s.sqlite")).test_client()
    index = flask.post("/v2/repository/index").json
    assert index is not None
    assert index[1]["state"] == "UNAVAILABLE"
    assert "golden.json: SHA-256" in index[1]["reason"]
    for method, path in (("GET", "qsofa"), ("POST", "qsofa/infer")):
        assert flask.open(f"/v2/models/{path}", method=method).status_code == 503
    assert flask.post("/v2/repository/models/qsofa/load").status_code == 503
    assert flask.get("/v2/health/ready").status_code == 200


def test_the_decompressed_size_is_limited(flask: FlaskClient) -> None:
    answer = flask.post(
        "/v2/models/plain/infer",
        data=gzip.compress(b" " * (64 * 1024 * 1024)),
        headers={"Content-Encoding": "gzip"},
    )
    assert answer.status_code == 413


def test_all_shipped_models_answer(tmp_path: Path) -> None:
    flask = create_app(Settings(MODELS, tmp_path / "s.sqlite")).test_client()
    for golden in MODELS.glob("*/*/golden.json"):
        first = json.loads(golden.read_text())[0]
        name, version = golden.parts[-3:-1]
        path = f"/v2/models/{name}/versions/{version}/infer"
        answer = flask.post(path, json=document(first["features"])).json
        assert answer is not None
        expected = first["outputs"]["probability"]
        assert answer["outputs"][0]["data"] == [pytest.approx(expected, abs=1e-9)]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["FP64", "FP32"])
def test_one_matrix_of_all_features_is_accepted(
    client: triton.InferenceServerClient, binary: bool, datatype: str
) -> None:
    """A matrix with the columns in the order of the manifest gives the same result as one tensor
    per feature.
    """
    dtype = np.float64 if datatype == "FP64" else np.float32
    rows = np.array([list(ROW.values()), [50, 120, 16, np.nan], [80, 90, 30, 1.5]], dtype)
    matrix = triton.InferInput("features", list(rows.shape), datatype)
    matrix.set_data_from_numpy(rows, binary_data=binary)
    columns = []
    for name, values in zip(ROW, rows.T, strict=True):
        column = triton.InferInput(name, [len(rows)], datatype)
        column.set_data_from_numpy(np.ascontiguousarray(values))
        columns.append(column)
    answers = [
        client.infer("formula", each).as_numpy("probability") for each in ([matrix], columns)
    ]
    assert answers[0].tolist() == answers[1].tolist()


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([1, 3], [1, 2, 3]),
        ([4], [1, 2, 3, 4]),
        ([2, 4], [1] * 7),
        ([1, 4], [[1], [2]]),
        ([2, 4], [[1] * 3, [1] * 5]),
    ],
)
def test_a_matrix_of_another_shape_is_rejected(
    flask: FlaskClient, shape: list[int], data: list[Any]
) -> None:
    tensor = {"name": "features", "shape": shape, "datatype": "FP64", "data": data}
    answer = flask.post("/v2/models/formula/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["field"] == "features"


def test_an_output_requested_twice_is_rejected(flask: FlaskClient) -> None:
    twice = [{"name": "probability"}] * 2
    answer = flask.post("/v2/models/formula/infer", json=document(ROW, outputs=twice))
    assert (answer.status_code, answer.json and answer.json["field"]) == (400, "probability")


def test_null_members_count_as_missing(flask: FlaskClient) -> None:
    asked = document(ROW, parameters=None, outputs=None, id=None)
    asked["inputs"][0]["parameters"] = None
    assert flask.post("/v2/models/formula/infer", json=asked).status_code == 200


def test_several_models_answer_one_request_in_order(flask: FlaskClient) -> None:
    """A request that fails has its error, and the others have their outputs."""
    fine = document(ROW, model_name="formula", id="a")
    requests = [
        document({"age": 50.0}, model_name="plain", model_version="2"),
        document({"age": 50.0}, model_name="nobody"),
        document({"age": None}, model_name="plain"),
        document({"ages": 50.0}, model_name="plain", model_version="1"),
        document(ROW, model_name="formula", model_version="9"),
        fine,
    ]
    answer = flask.post("/v2/infer", json={"requests": requests})
    assert answer.status_code == 200
    assert answer.json is not None
    found = answer.json["responses"]
    assert [each.get("status") for each in found] == [None, 404, 400, 400, 404, None]
    assert [each.get("field") for each in found[2:4]] == ["age", "ages"]
    assert found[0]["outputs"][0]["data"] == pytest.approx([1 / (1 + np.exp(1.5))])
    alone = flask.post("/v2/models/formula/infer", json=document(ROW, id="a")).json
    assert found[5] == alone


def test_binary_tensors_follow_in_the_order_of_the_requests(flask: FlaskClient) -> None:
    def asked(size: int) -> dict[str, Any]:
        parameters = {"binary_data_size": size}
        tensor = {"name": "age", "shape": [size // 8], "datatype": "FP64", "parameters": parameters}
        outputs = [{"name": "probability", "parameters": {"binary_data": True}}]
        return {"model_name": "plain", "inputs": [tensor], "outputs": outputs}

    def post(ages: list[float], sizes: tuple[int, ...]) -> Any:
        head = json.dumps({"requests": list(map(asked, sizes))}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return flask.post("/v2/infer", data=head + np.array(ages).tobytes(), headers=headers)

    answer = post([50.0, 60.0, 70.0], (8, 16))
    length = int(answer.headers["Inference-Header-Content-Length"])
    found = np.frombuffer(answer.data[length:], "<f8")
    expected = 1 / (1 + np.exp(2 - 0.01 * np.array([50.0, 60.0, 70.0])))
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert post([50.0, 60.0], (8, 16)).status_code == 400
    assert post([50.0] * 4, (8, 16)).status_code == 400


def test_the_requests_in_one_body_are_limited(flask: FlaskClient) -> None:
    row = document({"age": 50.0}, model_name="plain")
    assert flask.post("/v2/infer", json={"requests": []}).status_code == 400
    assert flask.post("/v2/infer", json={"requests": [row] * 33}).status_code == 400
    large = document({"age": 50.0}, model_name="plain")
    large["inputs"][0]["shape"] = [999_999]
    answer = flask.post("/v2/infer", json={"requests": [row, large, row]}).json
    assert answer is not None
    assert [each.get("status") for each in answer["responses"]] == [None, 413, 413]


PATHS = ("/api/model", "/v2/infer", "/v2/models/formula/infer", "/v2/models/formula/explain")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("content_type", "headers"),
    [("text/plain", {}), (None, {"Origin": "http://localhost"}), ("", {"Sec-Fetch-Site": "none"})],
)
def test_rows_of_a_browser_need_the_json_content_type(
    flask: FlaskClient, path: str, content_type: str | None, headers: dict[str, str]
) -> None:
    answer = flask.post(path, data=b"{}", content_type=content_type, headers=headers)
    assert answer.status_code == 415


@pytest.mark.parametrize("path", [*PATHS, "/v2/repository/index", "/nothing"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://[bad"},
        {"Origin": "http://localhost.example.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_of_another_site_are_rejected(
    flask: FlaskClient, path: str, headers: dict[str, str]
) -> None:
    answer = flask.post(path, json=ROW, headers=headers)
    assert (answer.status_code, answer.content_type) == (403, "application/problem+json")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:5000", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://ward.example.org", "X-Forwarded-Host": "ward.example.org"},
    ],
)
def test_a_page_of_this_site_is_answered(flask: FlaskClient, headers: dict[str, str]) -> None:
    assert flask.post("/api/model?model=formula", json=ROW, headers=headers).status_code == 200
