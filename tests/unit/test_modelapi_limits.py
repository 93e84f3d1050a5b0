"""Tests hostile and unusual requests: encodings, sizes, slow explanations, and invalid names."""

import gzip
import io
import json
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from modelapi.limits import BODY, ROWS
from modelapi.predictor import Explanation, Rows
from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.modelapi_server import ROW, add_linear, copy_models

MEGABYTE = 1 << 20
INFER = "/v2/models/plain/infer"
PATHS = ("/api/model?model=plain", INFER, "/v2/models/plain/explain", "/v2/repository/index")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    models = copy_models(tmp_path_factory.mktemp("models"), "formula", "qsofa")
    add_linear(models, "plain", "1", -1.0)
    state = tmp_path_factory.mktemp("state") / "models.sqlite"
    return create_app(Settings(models=models, model_state=state))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def post(client: FlaskClient, path: str, body: bytes, **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=body, content_type="application/json", headers=names)


def tensor(**changes: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [50.0], **changes}]
    }


def peak(client: FlaskClient, path: str, body: bytes, **headers: str) -> tuple[int, int]:
    """Returns the status of a request, and the peak of the memory that it allocates."""
    tracemalloc.start()
    try:
        status = post(client, path, body, **headers).status_code
        return status, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("size", "status"), [(100, 200), (BODY + 1, 413)])
def test_a_body_without_a_length_is_read_up_to_the_limit(
    client: FlaskClient, size: int, status: int
) -> None:
    body = json.dumps(tensor()).encode().ljust(size)
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    answer = client.post(
        INFER,
        input_stream=io.BytesIO(body),
        content_type="application/json",
        environ_overrides=chunked,
    )
    assert answer.status_code == status


ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("path", PATHS)
def test_json_is_accepted_in_every_unicode_encoding(
    client: FlaskClient, path: str, encoding: str
) -> None:
    document = {"age": 50} if "api" in path else tensor() if "plain" in path else {"ready": True}
    text = json.dumps(document)
    answers = [post(client, path, text.encode(name)) for name in ("utf-8", encoding)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json == answers[1].json


def test_a_binary_part_may_follow_a_json_header_in_utf_16(client: FlaskClient) -> None:
    document = tensor(parameters={"binary_data_size": 8})
    del document["inputs"][0]["data"]
    head = json.dumps(document).encode("utf-16")
    body = head + np.array([50.0]).tobytes()
    answer = post(client, INFER, body, Inference_Header_Content_Length=str(len(head)))
    assert answer.json == post(client, INFER, json.dumps(tensor()).encode()).json


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00", b"\xef\xbb\xbf", b"\x00\x00\xfe\xff\xff\xff\xff\xff"]
)
def test_a_byte_order_mark_without_valid_text_is_an_error(client: FlaskClient, body: bytes) -> None:
    answer = post(client, "/api/model?model=plain", body)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")


def test_more_rows_than_the_limit_are_rejected_in_every_format(client: FlaskClient) -> None:
    rows = ROWS + 1
    binary = np.zeros(rows).tobytes()
    head = tensor(shape=[rows], parameters={"binary_data_size": len(binary)})
    del head["inputs"][0]["data"]
    packed = json.dumps(head).encode()
    matrix = tensor(name="features", shape=[rows, 1], data=[[1]] * rows)
    answers = [
        post(client, "/api/model?model=plain", json.dumps([{"age": 1}] * rows).encode()),
        post(client, INFER, json.dumps(tensor(shape=[rows], data=[1] * rows)).encode()),
        post(client, INFER, json.dumps(matrix).encode()),
        post(client, INFER, packed + binary, Inference_Header_Content_Length=str(len(packed))),
    ]
    assert [answer.status_code for answer in answers] == [413] * 4
    at_limit = tensor(shape=[ROWS], data=[1] * ROWS)
    assert post(client, INFER, json.dumps(at_limit).encode()).status_code == 200


def test_rows_times_features_are_limited(client: FlaskClient) -> None:
    """A request may have a million values, such as 250,000 rows of four features."""
    rows = 1_000_000 // 4 + 1
    inputs = [{"name": name, "shape": [rows], "datatype": "FP64", "data": []} for name in ROW]
    answer = post(client, "/v2/models/formula/infer", json.dumps({"inputs": inputs}).encode())
    assert answer.status_code == 413


HEAD = b'{"inputs":[{"name":"age","shape":[1],"datatype":"FP64","data":['
FILLERS = (b"{},", b"[],", b"1,", b"0.5,", b'"",', b"null,", b"NaN,", b"[1],", b"[[")


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("/api/model", b"["),
        ("/api/model?model=plain", b'{"age":['),
        (INFER, HEAD),
        (INFER, HEAD.replace(b'"data"', b'"x"')),
        (INFER, b'{"parameters":{"x":['),
        (INFER, b'{"outputs":['),
    ],
)
def test_a_large_body_without_rows_takes_less_than_100_mb(
    client: FlaskClient, path: str, head: bytes, filler: bytes
) -> None:
    """The compressed body has a few kilobytes, but as Python objects it would take up to 300 MB."""
    length = (BODY - len(head) - 16) // len(filler)
    tail = b"1]}]}" if "v2" in path else b"1]"
    body = gzip.compress(head + filler * length + tail, 1)
    status, memory = peak(client, path, body, Content_Encoding="gzip")
    assert status in (400, 413)
    assert memory < 100 * MEGABYTE


def test_the_largest_requests_stay_below_200_mb(client: FlaskClient) -> None:
    data = "0.123456789012345," * (ROWS - 1) + "0.1"
    body = json.dumps(tensor(shape=[ROWS], data=[])).replace("[]", f"[{data}]").encode()
    status, memory = peak(client, INFER, body)
    assert (status, memory < 200 * MEGABYTE) == (200, True)
    body = json.dumps([{"age": 0.5}] * ROWS).encode()
    status, memory = peak(client, "/api/model?model=plain", body)
    assert (status, memory < 200 * MEGABYTE) == (200, True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_the_size_limit_applies_to_the_decompressed_body(
    client: FlaskClient, path: str, pack: Any
) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    answer = post(client, path, pack(b" " * (BODY + 1)), Content_Encoding=encoding)
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


@pytest.mark.parametrize("tail", [b"x", gzip.compress(b'{"age":1}', mtime=0)])
def test_data_after_the_compressed_body_are_an_error(client: FlaskClient, tail: bytes) -> None:
    body = gzip.compress(b'{"age":1}') + tail
    answer = post(client, "/api/model?model=plain", body, Content_Encoding="gzip")
    assert answer.status_code == 400


def test_an_error_in_a_large_body_names_the_row_and_the_field(client: FlaskClient) -> None:
    for value in ('"x"', "NaN", "-Infinity", "1e999"):
        rows = '{"age":1},' * 70_000 + f'{{"age":{value}}}'
        answer = post(client, "/api/model?model=plain", f"[{rows}]".encode())
        assert (answer.status_code, answer.json["field"], answer.json["row"]) == (
            400,
            "age",
            70_000,
        )


class Blocks:
    """A predictor whose explanations wait until they are released."""

    explained_rows = 100

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.go = threading.Event()

    def outputs(self, rows: Rows) -> dict[str, Any]:
        return {"probability": np.zeros(len(rows))}

    def explain(self, rows: Rows) -> Explanation:
        self.started.release()
        self.go.wait(60)
        return Explanation("none", "log odds", np.zeros(len(rows)), np.zeros(rows.shape))


@pytest.fixture
def blocked(app: Flask) -> Iterator[Blocks]:
    model = app.extensions["registry"].find("plain")
    whole, model.predictor = model.predictor, Blocks()
    try:
        yield model.predictor
    finally:
        model.predictor.go.set()
        model.predictor = whole


def test_a_full_queue_of_explanations_does_not_block_predictions(
    app: Flask, blocked: Blocks
) -> None:
    body = json.dumps(tensor()).encode()
    statuses: list[int] = []
    answered = threading.Semaphore(0)

    def explain() -> None:
        answer = post(app.test_client(), "/v2/models/plain/explain", body)
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) > 0
        statuses.append(answer.status_code)
        answered.release()

    threads = [threading.Thread(target=explain) for _ in range(8)]
    for thread in threads:
        thread.start()
    # Of the eight requests, one is computed, one waits, and six get the answer 503.
    assert blocked.started.acquire(timeout=30)
    assert all(answered.acquire(timeout=30) for _ in range(6))
    assert statuses == [503] * 6
    assert post(app.test_client(), INFER, body).status_code == 200
    blocked.go.set()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses) == [200] * 2 + [503] * 6
    assert post(app.test_client(), "/v2/models/plain/explain", body).status_code == 200


SURROGATE = "%ED%A0%80"


@pytest.mark.parametrize(
    "path",
    [
        f"/v2/models/{SURROGATE}",
        f"/v2/models/plain/versions/{SURROGATE}/ready",
        f"/{SURROGATE}",
        f"/api/model?model={SURROGATE}",
        f"/api/model?model=plain&version={SURROGATE}",
        "/v2/models/%00",
        f"/v2/models/{'x' * 5000}",
        f"/v2/models/plain/versions/{'9' * 5000}",
        f"/docs/{'x' * 5000}",
        "/api/model?version=%00",
    ],
    ids=lambda path: path[:40],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_an_invalid_name_is_not_found(client: FlaskClient, path: str, method: str) -> None:
    answer = client.open(path, method=method, json={} if method == "POST" else None)
    assert answer.status_code in (404, 405)
    assert answer.content_type == "application/problem+json"
    assert len(answer.data) < 1500


@pytest.mark.parametrize(
    "body",
    [
        rb'{"\ud800":1}',
        rb'{"age":"\ud800"}',
        rb'{"age":' + b"9" * 7000 + b"}",
        b'{"' + b"x" * 100_000 + b'":1}',
        b'{"\xed\xa0\x80":1}',
        rb'{"id":"\ud800","inputs":[]}',
        rb'{"id":"\ud800","inputs":[],"x":NaN}',
        rb'{"inputs":[{"name":"\udc00","shape":[1],"datatype":"FP64","data":[1]}]}',
        rb'{"inputs":[{"name":"age","shape":[' + b"9" * 7000 + rb'],"datatype":"FP64"}]}',
        rb'{"inputs":[{"name":"age","shape":[1],"datatype":"' + b"F" * 100_000 + b'","data":[1]}]}',
    ],
    ids=lambda body: repr(body[:40]),
)
@pytest.mark.parametrize(
    "path", ["/api/model", "/v2/models/plain/infer", "/v2/models/plain/explain"]
)
def test_an_invalid_text_is_a_short_error(client: FlaskClient, path: str, body: bytes) -> None:
    answer = post(client, path, body)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert len(answer.data) < 2500
