"""Tests that the HTTP servers answer only to allowed host names, and that the front of `make run`
sets the client's address itself.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from flask.testing import FlaskClient

import dashboard.app
import dashboard.settings
import hospital.settings
import hospital.streamer_aiohttp
import modelapi.server
import modelapi.settings
import wire.hosts
import wire.logs
import wire.metrics_server
import wire.settings
from embedded import front
from tests.support.modelapi_server import copy_models

ASK = Callable[[TestClient[Any, Any]], Awaitable[Any]]


def ask(app: web.Application, question: ASK) -> Any:
    async def answer() -> Any:
        async with TestClient(TestServer(app)) as client:
            return await question(client)

    return asyncio.run(answer())


def hospital_app(folder: Path, **settings: str) -> web.Application:
    return hospital.streamer_aiohttp.create_app(
        wire.settings.read(hospital.settings.Settings, settings)
    )


def dashboard_app(folder: Path, **settings: str) -> web.Application:
    nowhere = {"HOSPITAL_URL": "http://127.0.0.1:9", "MODEL_URL": "http://127.0.0.1:9"}
    stores = {
        "DATABASE_URL": f"sqlite:///{folder}/icu.sqlite",
        "REDIS_URL": f"unix://{folder}/redis.sock",
    }
    return dashboard.app.create_app(
        wire.settings.read(dashboard.settings.Settings, settings | nowhere | stores)
    )


def front_app(folder: Path, **settings: str) -> web.Application:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        return front.create_app()


MAKE = pytest.mark.parametrize("make", [hospital_app, dashboard_app, front_app])


NAMES = wire.settings.HostNames.parse("ward.example.org, Wall.example.org")
HOSTS = pytest.mark.parametrize(
    ("host", "rejected"),
    [
        ("localhost:5000", False),
        ("LOCALHOST", False),
        ("127.0.0.1", False),
        ("", False),
        ("192.0.2.7:5000", False),
        ("[::1]:5000", False),
        ("ward.example.org", False),
        ("wall.example.org:80", False),
        ("example.org", True),
        ("127.0.0.1.example.org:5000", True),
        ("localhost.example.org", True),
        ("ward.example.org.example.com", True),
        ("[::1].example.org", True),
    ],
)


@MAKE
@HOSTS
def test_only_allowed_host_names_are_answered(
    make: Callable[..., web.Application],
    host: str,
    rejected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for port in ("MODELAPI_PORT", "DASHBOARD_PORT"):
        monkeypatch.setenv(port, "9")

    async def question(client: TestClient[Any, Any]) -> tuple[int, str]:
        async with client.get("/health", headers={"Host": host}) as answer:
            return answer.status, await answer.text()

    app = make(tmp_path, ALLOWED_HOSTS="ward.example.org, Wall.example.org")
    status, text = ask(app, question)
    assert (status == 421) == rejected
    if rejected:
        assert "ALLOWED_HOSTS" in text
        assert len(text.splitlines()) == 1


@pytest.fixture(scope="module")
def model_api(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    folder = tmp_path_factory.mktemp("models")
    models = modelapi.settings.Folder(copy_models(folder, "formula"))
    settings = modelapi.settings.Settings(models, folder / "s.sqlite", allowed_hosts=NAMES)
    return modelapi.server.create_app(settings).test_client()


@HOSTS
def test_the_model_api_answers_only_to_allowed_host_names(
    host: str, rejected: bool, model_api: FlaskClient
) -> None:
    for path in ("/health", "/metrics", "/api/model", "/v2", "/docs", "/nothing"):
        answer = model_api.get(path, headers={"Host": host})
        assert (answer.status_code == 421) == rejected
        if rejected:
            assert answer.content_type == "application/problem+json"
            assert "ALLOWED_HOSTS" in answer.text


@pytest.fixture(scope="module")
def metrics_port() -> Iterator[int]:
    server, thread = wire.metrics_server.serve("127.0.0.1", 0, NAMES)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@HOSTS
def test_a_metrics_server_answers_only_to_allowed_host_names(
    host: str, rejected: bool, metrics_port: int
) -> None:
    with closing(HTTPConnection("127.0.0.1", metrics_port, timeout=10)) as connection:
        connection.request("GET", "/metrics", headers={"Host": host})
        answer = connection.getresponse()
        text = answer.read().decode()
    assert (answer.status == 421) == rejected
    assert ("ALLOWED_HOSTS" in text) == rejected


def test_the_front_sets_the_address_of_the_client_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def told(request: web.Request) -> web.Response:
        return web.json_response(
            [
                request.path,
                *(request.headers.getall(f"X-Forwarded-{name}") for name in ("For", "Host")),
                "X-User" in request.headers,
            ]
        )

    async def question(client: TestClient[Any, Any]) -> list[Any]:
        app = web.Application()
        app.router.add_get("/{path:.*}", told)
        async with TestServer(app) as behind:
            for port in ("MODELAPI_PORT", "DASHBOARD_PORT"):
                monkeypatch.setenv(port, str(behind.port))
            said = {
                "x-forwarded-for": "192.0.2.1",
                "x-forwarded-host": "h",
                "x-user": "ada",
                "Host": "localhost:1",
            }
            async with client.get("/v2/models", headers=said) as answer:
                return list(json.loads(await answer.text()))

    assert ask(front.create_app(), question) == [
        *("/v2/models", ["127.0.0.1"], ["localhost:1"]),
        False,
    ]
