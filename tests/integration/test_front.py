"""Tests the front of `make run` as a real program in front of an echo server."""

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from embedded.programs import ROOT
from embedded.stack import free_port

pytestmark = pytest.mark.timeout(90)


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    seen = {
        "path": request.raw_path,
        "headers": [[key.lower(), value] for key, value in request.headers.items()],
        "body": body.decode(),
    }
    answer = web.json_response(seen)
    answer.headers.add("X-Several", "one")
    answer.headers.add("X-Several", "two")
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer


async def wait_for_ever(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b": open\n\n")
    await asyncio.sleep(300)
    return answer


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def front() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the front. The echo server takes the place of both web programs."""
    behind = web.Application()
    behind.router.add_get("/events", wait_for_ever)
    for path in ("/patients/17", "/api/none"):
        behind.router.add_get(path, hang_up)
    behind.router.add_route("*", "/{path:.*}", echo)
    port = free_port()
    async with TestServer(behind) as server:
        ports = {"MODELAPI_PORT": str(server.port), "DASHBOARD_PORT": str(server.port)}
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded.front"],
            cwd=ROOT,
            env=os.environ | ports | {"FRONT_PORT": str(port)},
        )
        try:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(
                f"http://127.0.0.1:{port}", connector=connector
            ) as client:
                await listening(client)
                yield client
        finally:
            process.terminate()
            process.wait(10)


async def listening(client: aiohttp.ClientSession) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            await (await client.get("/")).read()
            return
        except aiohttp.ClientConnectionError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


def through_front(question: Callable[[aiohttp.ClientSession], Awaitable[Any]]) -> Any:
    async def ask() -> Any:
        async with front() as client:
            return await question(client)

    return asyncio.run(ask())


def test_150_pages_can_have_an_open_event_stream() -> None:
    async def question(client: aiohttp.ClientSession) -> int:
        pages = [await client.get("/events") for _ in range(150)]
        for page in pages:
            assert await page.content.readline() == b": open\n"
        async with client.get("/pipeline") as answer:
            status = answer.status
        for page in pages:
            page.close()
        return status

    assert through_front(question) == 200


@pytest.mark.parametrize("encoding", ["gzip", "x-unknown"])
def test_a_compressed_body_is_forwarded_unchanged(encoding: str) -> None:
    body = gzip.compress(b'{"age": 63}') if encoding == "gzip" else b"?"

    async def question(client: Any) -> Any:
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        address = URL(f"{client._base_url}/api/model?a=%2F", encoded=True)
        async with client.post(address, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    status, seen = through_front(question)
    assert status == 200
    assert seen["path"] == "/api/model?a=%2F"
    # The echo server decompresses the body, like the model API.
    assert seen["body"] == ('{"age": 63}' if encoding == "gzip" else "?")
    assert ["content-encoding", encoding] in seen["headers"]
    assert ["content-length", str(len(body))] in seen["headers"]


def test_headers_are_kept_in_both_directions() -> None:
    sent = [("X-Several", "one"), ("X-Several", "two"), ("Host", "localhost:1"), ("Cookie", "a=1")]

    async def question(client: aiohttp.ClientSession) -> Any:
        async with client.get("/", headers=sent) as answer:
            return json.loads(await answer.text()), answer.headers

    seen, answered = through_front(question)
    assert [pair for pair in seen["headers"] if pair[0] == "x-several"] == [
        ["x-several", "one"],
        ["x-several", "two"],
    ]
    assert ["host", "localhost:1"] in seen["headers"]
    assert ["cookie", "a=1"] in seen["headers"]
    assert answered.getall("X-Several") == ["one", "two"]
    assert [cookie.partition(";")[0] for cookie in answered.getall("Set-Cookie")] == ["a=1", "b=2"]


def test_a_program_that_does_not_answer_is_reported_without_its_address() -> None:
    async def question(client: aiohttp.ClientSession) -> list[tuple[int, str]]:
        paths = ("/patients/17", "/api/none")
        return [
            (answer.status, await answer.text())
            for path in paths
            if (answer := await client.get(path))
        ]

    (page_status, page), (api_status, api) = through_front(question)
    assert page_status == api_status == 502
    assert 'http-equiv="refresh"' in page  # so that the page appears when the dashboard answers
    assert "127.0.0.1" not in json.loads(api)["error"]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:22/", "@127.0.0.1:22/", ":1@127.0.0.1/", ".example.org/"]
)
def test_an_address_of_another_server_is_an_error(target: str) -> None:
    async def question(client: aiohttp.ClientSession) -> bytes:
        async with client.get("/") as answer:
            port = answer.url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status = await reader.readline()
        writer.close()
        return status

    assert through_front(question).split()[1] == b"400"
