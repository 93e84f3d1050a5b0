"""Sends damaged requests over sockets to the dashboard, the login service and the gateway."""

import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp.test_utils import TestServer

import dashboard.app
import dashboard.settings
import login.app
import login.settings
from login.store import Store
from tests.support.fuzz.damage import damaged
from tests.support.fuzz.parsers import MESSAGES
from tests.support.fuzz.requests import EXPECTED, HEADERS, NAMES, Cost, damaged_body
from tests.support.gateway import events, gateway
from tests.support.seeded_ward import START, ward
from wire.settings import read

Requests = Callable[[random.Random], tuple[str, str, bytes]]


async def _sent(rng: random.Random, inputs: int, port: int, requests: Requests) -> Counter[str]:
    """Sends damaged requests over sockets; counts the statuses, "none" for a closed connection."""
    counts: Counter[str] = Counter()
    cost = Cost()
    for _ in range(inputs):
        method, path, body = requests(rng)
        body, headers = damaged_body(rng, body) if rng.random() < 0.7 else (body, {})
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        lines += rng.sample(HEADERS, rng.choice((0, 0, 1, 2)))
        if "x-www-form" in path or method == "FORM":
            lines[0] = f"POST {path} HTTP/1.1"
            lines.append("Content-Type: application/x-www-form-urlencoded")
        if rng.random() < 0.1:
            lines.append(f"{rng.choice(NAMES)}: \udcff")  # a byte that is not UTF-8
        head = "\r\n".join([*lines, "Connection: close", "", ""]).encode(errors="surrogateescape")
        if rng.random() < 0.2:
            head = damaged(rng, head, 1)
        with cost:
            counts[await _status(port, head + body)] += 1
    assert set(counts) <= {str(status) for status in EXPECTED} | {"none"}, counts
    return counts


async def _status(port: int, request: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        try:
            status = await asyncio.wait_for(reader.readline(), 0.5)
        except TimeoutError:  # the server waits for the rest of a damaged request
            writer.write_eof()
            status = await asyncio.wait_for(reader.readline(), 30)
        return status.split()[1].decode() if status else "none"
    except ConnectionError:
        return "none"
    finally:
        writer.close()


def dashboard_pages(rng: random.Random, inputs: int) -> Counter[str]:
    """Fuzzes the pages, the live updates and the forms of the dashboard."""

    def request(rng: random.Random) -> tuple[str, str, bytes]:
        path = rng.choice(
            (
                *("/", "/patients", "/patients?q=1&page=2", "/patients/1", "/pipeline.json"),
                *("/patients/1?stay=2150-03-01", "/drift", "/models", "/models/icu-mortality/1"),
                *("/static/live.js", "/health", "/metrics", "/events?page=x", "/?stream=5eed0001"),
            )
        )
        if rng.random() < 0.2:
            return "FORM", "/patients/1/acknowledge", b"stream=5eed0001&stay=2150-03-01&author=Ada"
        return rng.choice(("GET", "GET", "HEAD", "POST")), _damaged_path(rng, path), b""

    async def run() -> Counter[str]:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, "icu.sqlite")
            with ward(path) as made:
                made.add_stay(1, START)
                made.add_reading(1, START, START, "heart_rate", 80.0)
                made.commit()
            stores = {"DATABASE_URL": f"sqlite:///{path}", "REDIS_URL": f"unix://{path}.sock"}
            nowhere = dict.fromkeys(
                ("HOSPITAL_URL", "MODEL_URL", "ACKNOWLEDGE_URL"), "http://127.0.0.1:9"
            )
            settings = read(dashboard.settings.Settings, stores | nowhere)
            async with TestServer(dashboard.app.create_app(settings)) as server:
                return await _sent(rng, inputs, server.port or 0, request)

    return asyncio.run(run())


def _damaged_path(rng: random.Random, path: str) -> str:
    if rng.random() < 0.5:
        path = damaged(rng, path.encode(), 2).decode("latin-1")
    return path.replace(" ", "%20") if rng.random() < 0.8 else path


def login_forms(rng: random.Random, inputs: int) -> Counter[str]:
    """Fuzzes the forms and checks of the login service. Its lockout soon rejects
    every password.
    """

    def request(rng: random.Random) -> tuple[str, str, bytes]:
        if rng.random() < 0.5:
            return (
                "FORM",
                "/login",
                damaged(rng, b"user=ada&password=guess&next=%2Fpatients%2F1", 2),
            )
        path = rng.choice(
            ("/login?next=/a", "/check/person", "/check/program", "/logout", "/metrics")
        )
        return rng.choice(("GET", "POST")), _damaged_path(rng, path), b"user=ada"

    async def run() -> Counter[str]:
        with tempfile.TemporaryDirectory() as name:
            store = Store(Path(name, "login.sqlite"))
            app = login.app.create_app(read(login.settings.Settings, {}), store)
            async with TestServer(app) as server:
                counts = await _sent(rng, inputs, server.port or 0, request)
            store.close()
            return counts

    return asyncio.run(run())


def gateway_messages(rng: random.Random, inputs: int) -> Counter[str]:
    """Fuzzes messages and FHIR resources. Each message of a list must get a result, and each
    accepted message must be in the log.
    """

    async def run() -> Counter[str]:
        counts: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as name:
            async with gateway(Path(name, "log")) as running:
                while counts["inputs"] < inputs:
                    count = min(rng.randint(1, 40), inputs - counts["inputs"])
                    counts.update(await _posted(rng, running.http, running.url, count))
                    counts["inputs"] += count
                port = int(running.url.rpartition(":")[2])
                counts.update(await _sent(rng, inputs // 4, port, _fhir))
            assert len(events(Path(name, "log"))) >= counts["201 of a list"]
        return counts

    return asyncio.run(run())


async def _posted(
    rng: random.Random, http: aiohttp.ClientSession, url: str, count: int
) -> Counter[str]:
    """Sends a list of valid and damaged messages; counts the statuses."""
    body = b"[" + b",".join(_message(rng) for _ in range(count)) + b"]"
    async with http.post(f"{url}/messages", data=body) as answer:
        assert answer.status in EXPECTED, answer.status
        if answer.status != 207:
            return Counter({f"{answer.status} of a list": 1})
        results = (await answer.json())["results"]
    assert len(results) == len(msgspec.json.decode(body, type=list[msgspec.Raw]))
    return Counter(f"{result['status']} of a list" for result in results)


def _message(rng: random.Random) -> bytes:
    text = json.dumps({**rng.choice(MESSAGES), "pat_id": rng.randint(1, 10**6)}).encode()
    return damaged(rng, text, 1) if rng.random() < 0.02 else text


def _fhir(rng: random.Random) -> tuple[str, str, bytes]:
    resource_: dict[str, Any] = {
        "resourceType": rng.choice(("Observation", "Encounter", "Patient", "Bundle", "X")),
        "id": "a",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "valueQuantity": {"value": 80, "unit": "/min"},
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2026-01-01T00:00:00Z",
        "entry": [],
    }
    kind = resource_["resourceType"]
    path = rng.choice(("/fhir", f"/fhir/{kind}", f"/fhir/{kind}/a", "/messages", "/sub"))
    method = rng.choice(("POST", "POST", "PUT", "GET", "DELETE"))
    return method, _damaged_path(rng, path), damaged(rng, json.dumps(resource_).encode(), 2)
