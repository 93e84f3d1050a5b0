"""Tests the tool's requests for predictions to the project's model API, and to servers that support
less of the protocol.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from werkzeug.serving import make_server

from embedded.programs import ROOT
from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.batches import Client, batch, handler_of, message, remember
from tests.support.modelapi_server import copy_models, fetch, in_thread
from tests.support.servers import rows
from tool import model_client
from tool.data_handler import DataHandler
from tool.database import connect
from tool.model_client import Declaration, Model, ModelClient
from tool.model_server import InvalidRows, ModelUnavailable, NoAnswer
from tool.pending import CatchUp
from tool.settings import Settings as ToolSettings
from tool.settings import client_of
from training.export import export
from wire.features import Feature
from wire.settings import read

pytestmark = pytest.mark.timeout(60, func_only=True)

NAMES = ("age", "heart_rate__mean", "spo2__last")
FEATURES: list[dict[str, Any]] = [Feature.parse(name).declaration() for name in NAMES]
MODEL = Model("m", "1", FEATURES)
ROWS = [[63.0, 80.5, None], [71.0, None, 96.0]]
SILENT = 0  # the status of a path that is not answered


class Server(ThreadingHTTPServer):
    """A model API that answers each path from `answers`, and records the requests."""

    def __init__(self, answers: dict[str, tuple[int, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked: list[tuple[str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, body))
        status, answer = self.server.answers.get(self.path.partition("?")[0], (404, b"{}"))
        if status == SILENT:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Logs no requests."""


@contextmanager
def serving(**answers: tuple[int, object]) -> Iterator[tuple[Server, ModelClient]]:
    paths = {"json": "/api/model", "v2": "/v2/models/m/versions/1/infer", "all": "/v2/infer"}
    server = Server({paths[key]: (s, json.dumps(a).encode()) for key, (s, a) in answers.items()})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        yield server, ModelClient(url, timeout=5, pause_max=0.0)
    finally:
        server.shutdown()
        server.server_close()


def predicted(*probabilities: float, version: str = "1") -> list[dict[str, object]]:
    return [{"model": "m", "version": version, "probability": p} for p in probabilities]


def inferred(*probabilities: float, model: str = "m") -> dict[str, object]:
    shape = {"shape": [len(probabilities)], "datatype": "FP64"}
    tensor = {"name": "probability", "data": list(probabilities), **shape}
    return {"model_name": model, "model_version": "1", "outputs": [tensor]}


@pytest.mark.parametrize("ref", ["icu-mortality/1", "formula/1"])
def test_the_model_api_returns_the_golden_outputs(ref: str, tmp_path: Path) -> None:
    folder = ROOT / "models" / ref
    golden = json.loads((folder / "golden.json").read_text())
    declared = json.loads((folder / "manifest.json").read_text())["features"]
    model = Model(*ref.split("/"), declared)
    values = [[row["features"][each["name"]] for each in declared] for row in golden]
    app = create_app(Settings(models=ROOT / "models", model_state=tmp_path / "state.sqlite"))
    server = make_server("127.0.0.1", 0, app)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        found = ModelClient(url, timeout=30).predict(model, values * 50)
    finally:
        server.shutdown()
    expected = [row["outputs"]["probability"] for row in golden] * 50
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("key", ["MODEL_URL", "FRONT_PORT"])
def test_the_model_api_is_at_the_configured_address_or_port(key: str) -> None:
    with serving(v2=(200, inferred(0.1, 0.2))) as (server, _):
        port = str(server.server_port)
        both = {"MODEL_URL": f"http://127.0.0.1:{port}", "FRONT_PORT": "9"}
        environ = both if key == "MODEL_URL" else {"FRONT_PORT": port}
        assert client_of(read(ToolSettings, environ)).predict(MODEL, ROWS) == [0.1, 0.2]


def test_the_name_and_version_of_a_model_are_quoted() -> None:
    with serving() as (server, client), pytest.raises(ModelUnavailable):
        client.predict(Model("a/b", "1?&#x", FEATURES), ROWS)
    quoted, version = "a%2Fb", "1%3F%26%23x"
    assert [path for path, _ in server.asked] == [
        f"/v2/models/{quoted}/versions/{version}/infer",
        f"/api/model?model={quoted}&version={version}",
    ]


def test_a_server_without_the_protocol_gets_json_objects() -> None:
    with serving(json=(200, predicted(0.1, 0.2))) as (server, client):
        assert client.predict(MODEL, ROWS) == [0.1, 0.2]
        assert client.predict(MODEL, ROWS) == [0.1, 0.2]
    paths = [path.partition("?")[0] for path, _ in server.asked]
    assert paths == ["/v2/models/m/versions/1/infer", "/api/model", "/api/model"]
    assert json.loads(server.asked[-1][1]) == [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def test_a_server_of_the_protocol_may_answer_in_json() -> None:
    with serving(v2=(200, inferred(0.25, 0.5))) as (server, client):
        assert client.predict(MODEL, ROWS) == [0.25, 0.5]
    assert [path for path, _ in server.asked] == ["/v2/models/m/versions/1/infer"]


@pytest.mark.parametrize(
    "answer",
    [
        (200, inferred(0.25)),
        (200, inferred(0.25, 1.5)),
        (200, inferred(0.25, 0.5, model="other")),
        (200, {"model_name": "m", "outputs": []}),
        (200, []),
        (500, inferred(0.25, 0.5)),
        (503, {}),
    ],
)
def test_an_invalid_answer_counts_as_an_unavailable_model(
    answer: tuple[int, object],
) -> None:
    with serving(v2=answer) as (_, client), pytest.raises(ModelUnavailable):
        client.predict(MODEL, ROWS)


def test_a_model_that_is_missing_everywhere_is_requested_in_binary_again() -> None:
    with serving() as (server, client):
        with pytest.raises(ModelUnavailable):
            client.predict(MODEL, ROWS)
        server.answers["/v2/models/m/versions/1/infer"] = (200, json.dumps(inferred(1)).encode())
        assert client.predict(MODEL, ROWS[:1]) == [1.0]


def test_status_400_raises_invalid_rows() -> None:
    with serving(v2=(400, {})) as (_, client), pytest.raises(InvalidRows):
        client.predict(MODEL, ROWS)


OTHER = Model("other", "1", FEATURES)
BOTH = [(MODEL, ROWS), (OTHER, ROWS[:1])]


def failed(model: str, status: int) -> dict[str, object]:
    return {"model_name": model, "model_version": "1", "status": status, "error": "it fails"}


def test_several_models_are_asked_in_one_request(tmp_path: Path) -> None:
    models = copy_models(tmp_path, "formula", "qsofa")
    app = create_app(Settings(models=models, model_state=tmp_path / "state.sqlite"))
    asked, expected = [], []
    for path in sorted(models.glob("*/*/manifest.json")):
        manifest = json.loads(path.read_text())
        golden = json.loads((path.parent / "golden.json").read_text())
        names = [feature["name"] for feature in manifest["features"]]
        model = Model(manifest["model"], manifest["version"], manifest["features"])
        asked.append((model, [[row["features"][name] for name in names] for row in golden]))
        expected.append([row["outputs"]["probability"] for row in golden])
    with in_thread(app) as url:
        client = ModelClient(url, timeout=30)
        found = client.predict_all([*asked, (MODEL, ROWS)])
        [stats] = fetch(f"{url}/v2/models/formula/stats")[1]["model_stats"]
    for outputs, wanted in zip(found, expected, strict=False):
        assert outputs == pytest.approx(wanted, abs=1e-9)
    assert isinstance(found[-1], ModelUnavailable)
    assert stats["execution_count"] == 1


def test_a_model_that_fails_does_not_affect_the_others() -> None:
    answers = [inferred(0.1, 0.2), failed("other", 503)]
    with serving(all=(200, {"responses": answers}), v2=(200, inferred(0.3, 0.4))) as (
        server,
        client,
    ):
        for expected in ([0.1, 0.2], [0.3, 0.4]):
            first, other = client.predict_all(BOTH)
            assert first == expected
            assert isinstance(other, ModelUnavailable)
    paths = [path.partition("?")[0] for path, _ in server.asked]
    alone = "/v2/models/m/versions/1/infer"
    assert paths[:2] == ["/v2/infer", alone]


def test_rejected_rows_of_one_model_are_reported() -> None:
    answers = [inferred(0.1, 0.2), failed("other", 400)]
    with serving(all=(200, {"responses": answers})) as (_, client):
        first, other = client.predict_all(BOTH)
    assert first == [0.1, 0.2]
    assert isinstance(other, InvalidRows)


@pytest.mark.parametrize("answer", [(404, {}), (500, {}), (200, {"responses": []}), (200, [])])
def test_without_a_common_answer_each_model_is_asked(answer: tuple[int, object]) -> None:
    with serving(all=answer, v2=(200, inferred(0.1, 0.2))) as (_, client):
        first, other = client.predict_all(BOTH)
    assert first == [0.1, 0.2]
    assert isinstance(other, ModelUnavailable)


def test_a_batch_waits_for_one_answer_that_does_not_come() -> None:
    with serving(all=(SILENT, {}), v2=(SILENT, {})) as (server, client):
        for asked in (1, 2):
            assert all(isinstance(each, NoAnswer) for each in client.predict_all(BOTH))
            assert len(server.asked) == asked


def test_a_token_that_cannot_be_sent_makes_no_dead_letter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The tokens: in UTF-16, in Windows-1252, in two lines, with a dash of a word processor, and an
    empty file."""
    tokens = (b"\xff\xfes\0e\0", b"s\xe9", b"secret\r\nsecret", "secret\u2013".encode(), b"")
    file, url = tmp_path / "token", f"sqlite:///{tmp_path}/icu.sqlite"
    with closing(connect(url)) as database:
        database.create_tables()
        handlers = (
            DataHandler(database, ModelClient("http://127.0.0.1:9", 1.0, str(file))) for _ in tokens
        )
        for number, (token, handler) in enumerate(zip(tokens, handlers, strict=True)):
            file.write_bytes(token)
            handler.declare(Declaration(Model("m", "1", FEATURES[:1])))
            assert handler.handle(batch(number, message(80.0))).stored == 1
    assert rows(url, "SELECT reason FROM rejected") == []
    assert rows(url, "SELECT COUNT(*) FROM pending") == [(len(tokens),)]
    assert "secret" not in caplog.text


def test_several_models_are_asked_together_again_after_an_upgrade(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_client, "ASK_AGAIN", 0)
    alone = inferred(0.1, 0.2)
    with serving(all=(404, {}), v2=(200, alone)) as (server, client):
        assert client.predict_all([(MODEL, ROWS)] * 2) == [[0.1, 0.2]] * 2
        server.answers["/v2/infer"] = 200, json.dumps({"responses": [alone, alone]}).encode()
        assert client.predict_all([(MODEL, ROWS)] * 2) == [[0.1, 0.2]] * 2
    assert server.asked[-1][0] == "/v2/infer"


def features(*names: str, fill: float | None = None) -> list[dict[str, Any]]:
    return [Feature.parse(name, fill=fill).declaration() for name in names]


class Recorder(Client):
    """A stub model that records the rows it is asked for, by model."""

    def __init__(self, away: bool = False) -> None:
        super().__init__(away)
        self.rows: dict[str, Any] = {}

    def predict(self, model: Model, rows: Any) -> list[float]:
        self.rows[model.model] = [
            dict(zip(NAMES_OF[model.model], row, strict=True)) for row in rows
        ]
        return super().predict(model, rows)


MORE = (*NAMES, "heart_rate__last__6h", "temperature__last")
LITTLE = ("hour", "age", "temperature__last")
NAMES_OF = {"m": NAMES, "other": NAMES, "part": NAMES[:2], "more": MORE, "little": LITTLE}
NAMES_OF["filled"] = NAMES


@pytest.mark.parametrize("kind", ["sqlite", "mysql", "mariadb"])
def test_models_store_the_features_that_they_share_once(
    kind: str,
    with_tables: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = with_tables(kind)
    models = [Model(name, "1", features(*names)) for name, names in NAMES_OF.items()]
    filled = features("age", "heart_rate__mean") + features("spo2__last", fill=96.0)
    declaration = Declaration(models[0], [*models[1:-1], Model("filled", "1", filled)])
    client = Recorder(away=True)
    with closing(connect(url)) as database:
        remember(database, declaration)
        handler_of(database, declaration, client).handle(batch(0, message(80.0)))
        stored = dict(rows(url, "SELECT model, features FROM predictions"))  # type: ignore[arg-type]
        assert stored == {
            "m": "[63.2,80.0,null]",
            "other": None,
            "part": None,
            "more": '{"3":80.0,"4":null}',
            "little": "[0.0,63.2,null]",
            "filled": "[63.2,80.0,96.0]",
        }
        client.away = False
        # The champion is declared while the catch-up runs.
        models_of = database.models
        answers = [[row for row in models_of() if row.model != "m"]]
        monkeypatch.setattr(database, "models", lambda: answers.pop() if answers else models_of())
        for _ in range(2):
            CatchUp(database, client).fill_in()  # type: ignore[arg-type]
    values = {"age": 63.2, "heart_rate__mean": 80.0, "heart_rate__last__6h": 80.0, "hour": 0.0}
    wanted = {name: {each: values.get(each) for each in names} for name, names in NAMES_OF.items()}
    wanted["filled"]["spo2__last"] = 96.0
    assert {name: found for name, [found] in client.rows.items()} == wanted
    shown: dict[str, dict[str, float | None]] = defaultdict(dict)
    for name, feature, value in rows(url, "SELECT model, feature, value FROM prediction_features"):
        shown[name][feature] = value
    assert shown == wanted
    for file, _ in export(url, "", tmp_path, "parquet"):
        if file.stem == "predictions":
            found = parquet.read_table(file).to_pylist()
    assert {row["model"]: row["features"] for row in found} == {
        name: list(row.values()) for name, row in wanted.items()
    }
