"""Tests the dashboard behind a log-in: the log-out button, and open pages whose session ends."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from flask import Flask

import login.app
import login.passwords
import login.settings
from dashboard import events
from dashboard.app import create_app
from dashboard.settings import Settings
from embedded.programs import ROOT
from login.store import Store
from tests.integration.test_login import ANOTHER, CHEAP, HASHES, log_in, with_user
from tests.support import seeded_ward
from tests.support.modelapi_server import in_thread
from tests.support.seeded_ward import START
from wire.settings import read

NOWHERE = "http://127.0.0.1:9"
PATIENT = "/events?page=patient&pat_id=1&stay=2150-03-01"
Client = TestClient[Any, Any]
End = Callable[[Client, str, Path], Awaitable[None]]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login.passwords, "_NOBODY", CHEAP.hash("nobody"))
    monkeypatch.setattr(events, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(events, "CHECK_SECONDS", 0.05)


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A database with one patient."""
    path = tmp_path / "icu.sqlite"
    with seeded_ward.ward(path) as made:
        made.add_stay(1, START)
        made.add_reading(1, START, START, "heart_rate", 80.0)
        made.commit()
    return path


@asynccontextmanager
async def served(ward: Path, file: Path, hours: str = "12") -> AsyncIterator[tuple[Client, Client]]:
    """Starts a dashboard and the login service; yields a client of each."""
    store = Store(file)
    people = login.app.create_app(read(login.settings.Settings, {"SESSION_HOURS": hours}), store)
    jar = aiohttp.DummyCookieJar()
    async with TestClient(TestServer(people), cookie_jar=jar) as users:
        stores = {"DATABASE_URL": f"sqlite:///{ward}", "REDIS_URL": f"unix://{ward}.sock"}
        others = {"HOSPITAL_URL": NOWHERE, "MODEL_URL": NOWHERE}
        address = {"LOGIN_URL": str(users.make_url(""))}
        app = create_app(read(Settings, stores | others | address))
        async with TestClient(TestServer(app), cookie_jar=jar) as pages:
            yield pages, users
    store.close()


async def log_out(users: Client, cookie: str, file: Path) -> None:
    await users.post("/logout", headers={"Cookie": cookie}, allow_redirects=False)


async def change_password(users: Client, cookie: str, file: Path) -> None:
    with closing(Store(file)) as store:
        store.set_password("ada", HASHES[ANOTHER])


async def remove_user(users: Client, cookie: str, file: Path) -> None:
    with closing(Store(file)) as store:
        assert store.remove("ada")


async def expire(users: Client, cookie: str, file: Path) -> None:
    """Does nothing, because the session of this test ends after two seconds."""


async def break_login(users: Client, cookie: str, file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("DROP TABLE ended")


async def stop_login(users: Client, cookie: str, file: Path) -> None:
    await users.close()


@pytest.mark.parametrize(
    ("address", "end", "said"),
    [
        (PATIENT, log_out, True),
        ("/events?page=ward", log_out, True),
        ("/events?page=pipeline", log_out, True),
        (PATIENT, change_password, True),
        (PATIENT, remove_user, True),
        (PATIENT, expire, True),
        # The browser reconnects, and nginx answers 500 until the service is back.
        (PATIENT, break_login, False),
        (PATIENT, stop_login, False),
    ],
)
def test_an_open_page_gets_nothing_once_its_session_has_ended(
    ward: Path, tmp_path: Path, address: str, end: End, said: bool
) -> None:
    file = with_user(tmp_path / "login.sqlite")

    async def question() -> str:
        hours = str(2 / 3600) if end is expire else "12"
        async with served(ward, file, hours) as (pages, users):
            cookie = (await log_in(users))[2]
            sent = {"Cookie": cookie, "X-User": "ada", "Accept-Encoding": "identity"}
            async with pages.get(address, headers=sent) as answer:
                assert answer.status == 200
                await answer.content.readuntil(b"event: beat")
                await end(users, cookie, file)
                rest = await asyncio.wait_for(answer.content.read(), 30)
                return rest.decode()

    assert asyncio.run(question()).endswith("event: ended\ndata: {}\n\n") == said


@pytest.mark.parametrize("user", ["ada", ""])
def test_an_open_page_continues_while_its_session_lasts_or_if_no_log_in_is_required(
    ward: Path, tmp_path: Path, user: str
) -> None:
    file = with_user(tmp_path / "login.sqlite")

    async def question() -> bytes:
        async with served(ward, file) as (pages, users):
            cookie = (await log_in(users))[2] if user else ""
            sent = {"Cookie": cookie, "X-User": user, "Accept-Encoding": "identity"}
            async with pages.get("/events?page=pipeline", headers=sent) as answer:
                seen = b""
                while seen.count(b"event: beat") < 20:
                    seen += await answer.content.readuntil(b"\n\n")
                return seen

    assert b"event: ended" not in asyncio.run(question())


def test_every_page_has_a_button_that_logs_out(ward: Path, tmp_path: Path) -> None:
    file = with_user(tmp_path / "login.sqlite")
    form = re.compile(r'<form [^>]*method="post" action="/logout">(.*?)</form>', re.DOTALL)

    async def question() -> None:
        async with served(ward, file) as (pages, _):
            for address in ("/", "/patients/1", "/pipeline", "/models", "/drift", "/no"):
                async with pages.get(address, headers={"X-User": "<i>&"}) as answer:
                    [content] = form.findall(await answer.text())
                assert "&lt;i&gt;&amp;" in content, address
                assert "<button>Log out</button>" in content
                async with pages.get(address) as answer:
                    assert form.findall(await answer.text()) == [], address

    asyncio.run(question())


def test_status_reports_a_required_log_in_in_one_line() -> None:
    front = Flask("front")
    front.get("/pipeline.json")(lambda: ("", 401))
    with in_thread(front) as url:
        done = subprocess.run(
            [sys.executable, "-m", "dashboard.terminal"],
            cwd=ROOT,
            env={**os.environ, "DASHBOARD_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"status: {url} answers 401 .+\n", done.stderr)
