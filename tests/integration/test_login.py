"""Tests the login service without nginx: passwords, sessions, lockout, audit log and OIDC proxy."""

import asyncio
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from argon2 import PasswordHasher

import login.app
import login.passwords
import login.settings
from embedded.programs import ROOT
from embedded.stack import free_port
from login.app import create_app
from login.settings import Settings
from login.store import Store
from wire.settings import read

SECRET = "correct horse battery"  # noqa: S105
ANOTHER = "another long password"
WRONG = "a wrong one"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
HASHES = {text: CHEAP.hash(text) for text in (SECRET, ANOTHER)}
Client = TestClient[Any, Any]


def run(*arguments: str, stdin: str = "", **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "login", *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login.passwords, "_NOBODY", CHEAP.hash("nobody"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A login file with one user, ada."""
    return with_user(tmp_path / "login.sqlite")


def with_user(path: Path, secret: str = SECRET) -> Path:
    with closing(Store(path)) as store:
        store.set_password("ada", HASHES[secret])
    return path


@asynccontextmanager
async def serving(file: Path, **environ: str) -> AsyncIterator[Client]:
    settings = read(Settings, environ)
    store = Store(file)
    try:
        # The tests send the cookies themselves.
        jar = aiohttp.DummyCookieJar()
        async with TestClient(TestServer(create_app(settings, store)), cookie_jar=jar) as client:
            yield client
    finally:
        store.close()


def ask(file: Path, question: Callable[[Client], Awaitable[Any]], **environ: str) -> Any:
    async def run() -> Any:
        async with serving(file, **environ) as client:
            return await question(client)

    return asyncio.run(run())


async def log_in(
    client: Client,
    user: str = "ada",
    password: str = SECRET,
    address: str = "192.0.2.1",
    next: str = "/",
    **headers: str,
) -> tuple[int, Any, str]:
    """Posts the form; returns the status, the headers, and the cookies as a Cookie header."""
    form = {"user": user, "password": password, "next": next}
    sent = {"X-Forwarded-For": address} | headers
    async with client.post("/login", data=form, headers=sent, allow_redirects=False) as answer:
        await answer.read()
        cookies = SimpleCookie("\n".join(answer.headers.getall("Set-Cookie", [])))
        return (
            answer.status,
            answer.headers,
            "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items()),
        )


async def check(
    client: Client, cookie: str = "", uri: str = "/", who: str = "person", **headers: str
) -> tuple[int, str]:
    sent = {"Cookie": cookie, "X-Original-URI": uri, "X-Forwarded-For": "192.0.2.1"} | headers
    async with client.get(f"/check/{who}", headers=sent) as answer:
        return answer.status, answer.headers.get("X-User", "")


def audit(file: Path) -> list[dict[str, str]]:
    with closing(Store(file)) as store:
        return [entry._asdict() for entry in store.audit()]


def test_a_password_opens_a_session_and_log_out_ends_it(file: Path) -> None:
    async def question(client: Client) -> None:
        assert await check(client) == (401, "")
        status, headers, cookie = await log_in(client, "ADA ", next="/patients/17?stay=2019-02-01")
        assert (status, headers["Location"]) == (303, "/patients/17?stay=2019-02-01")
        assert await check(client, cookie) == (204, "ada")
        other = (await log_in(client))[2]
        sent = {"Cookie": cookie}
        async with client.post("/logout", headers=sent, allow_redirects=False) as answer:
            assert answer.status == 303
            assert "Max-Age=0" in answer.headers["Set-Cookie"]
        # The cookie is invalid now, but the session of another browser continues.
        assert await check(client, cookie) == (401, "")
        assert await check(client, other) == (204, "ada")

    ask(file, question)


@pytest.mark.parametrize("proto", ["http", "https"])
def test_the_cookie_is_kept_from_scripts_and_other_sites(file: Path, proto: str) -> None:
    async def question(client: Client) -> Any:
        return await log_in(client, **{"X-Forwarded-Proto": proto})

    _, headers, cookie = ask(file, question)
    words = {word.strip().lower() for word in headers["Set-Cookie"].split(";")}
    assert {"httponly", "samesite=lax", "path=/"} <= words
    assert ("secure" in words) == (proto == "https")
    assert cookie.startswith("__Host-") == (proto == "https")


def test_a_session_ends_when_the_password_changes_or_the_user_is_removed(file: Path) -> None:
    async def question(client: Client) -> None:
        cookie = (await log_in(client))[2]
        assert await check(client, cookie) == (204, "ada")
        with_user(file, ANOTHER)
        assert await check(client, cookie) == (401, "")
        cookie = (await log_in(client, password=ANOTHER))[2]
        assert await check(client, cookie) == (204, "ada")
        with closing(Store(file)) as store:
            assert store.remove("ada")
        assert await check(client, cookie) == (401, "")
        assert (await log_in(client, password=ANOTHER))[0] == 401

    ask(file, question)


@pytest.mark.parametrize("forge", ["", "x", "WyJhZGEi.x.y", "{cookie}x", "cut"])
def test_a_forged_session_is_rejected(file: Path, tmp_path: Path, forge: str) -> None:
    stranger = with_user(tmp_path / "stranger.sqlite")

    async def cookie(client: Client) -> str:
        return (await log_in(client))[2]

    mine, theirs = ask(file, cookie), ask(stranger, cookie)
    name, _, value = mine.partition("=")
    forged = value[:-4] if forge == "cut" else forge.format(cookie=value)

    async def question(client: Client) -> None:
        assert await check(client, mine) == (204, "ada")
        assert await check(client, f"{name}={forged}") == (401, "")
        # This cookie is signed with the key of another installation.
        assert await check(client, theirs) == (401, "")
        # A cookie that was set without TLS is not valid with TLS.
        assert await check(client, mine, **{"X-Forwarded-Proto": "https"}) == (401, "")

    ask(file, question)


def test_an_expired_session_is_rejected(file: Path) -> None:
    async def question(client: Client) -> None:
        cookie = (await log_in(client))[2]
        deadline = asyncio.get_running_loop().time() + 30
        while (await check(client, cookie))[0] == 204:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.2)

    ask(file, question, SESSION_HOURS=str(1 / 3600))


def test_a_user_is_locked_after_failures_from_anywhere(file: Path) -> None:
    async def question(client: Client) -> None:
        guesses = [log_in(client, password=f"guess {n}", address=f"192.0.2.{n}") for n in range(30)]
        statuses = [status for status, _, _ in await asyncio.gather(*guesses)]
        assert sorted(set(statuses)) == [401, 429]
        assert statuses.count(401) == login.passwords.USER_FAILURES
        status, headers, _ = await log_in(client, address="198.51.100.1")
        assert status == 429
        assert 0 < int(headers["Retry-After"]) <= login.passwords.WINDOW

    ask(file, question)

    async def after_a_restart(client: Client) -> int:
        return (await log_in(client))[0]

    assert ask(file, after_a_restart) == 429
    # The operator unlocks a user by setting a password.
    done = run("add", "Ada", stdin=f"{SECRET}\n", LOGIN_FILE=str(file))
    assert (done.returncode, done.stdout) == (0, "ada: password changed\n")
    assert ask(file, after_a_restart) == 303


@pytest.mark.parametrize("address", ["192.0.2.{n}", "2001:db8::{n}"])
def test_an_address_is_locked_after_failures_with_any_name(file: Path, address: str) -> None:
    async def question(client: Client) -> list[int]:
        source = "192.0.2.1" if "." in address else "2001:db8::{n}"
        guesses = [
            log_in(client, user=f"user{n}", password=WRONG, address=source.format(n=n))
            for n in range(login.passwords.ADDRESS_FAILURES + 5)
        ]
        statuses = [status for status, _, _ in await asyncio.gather(*guesses)]
        assert statuses.count(401) == login.passwords.ADDRESS_FAILURES
        own = (await log_in(client, address=source.format(n="ffff")))[0]
        return [own, (await log_in(client, address="198.51.100.1"))[0]]

    assert ask(file, question) == [429, 303]


def test_attempts_and_checks_are_counted(file: Path) -> None:
    async def count(client: Client) -> dict[str, float]:
        async with client.get("/metrics") as answer:
            text = await answer.text()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("icu_login_")]
        return {name: float(value) for name, value in lines}

    async def question(client: Client) -> dict[str, float]:
        before = await count(client)
        cookie = (await log_in(client))[2]
        for n in range(login.passwords.USER_FAILURES + 2):
            await log_in(client, password=f"guess {n}")
        await log_in(client, user="<script>")
        for sent in (cookie, cookie, ""):
            await check(client, sent)
        after = await count(client)
        return {name: after[name] - before[name] for name in after}

    assert ask(file, question) == {
        'icu_login_attempts_total{result="success"}': 1,
        'icu_login_attempts_total{result="failure"}': login.passwords.USER_FAILURES + 1,
        'icu_login_attempts_total{result="locked_out"}': 2,
        'icu_login_checks_total{status="204"}': 2,
        'icu_login_checks_total{status="401"}': 1,
        'icu_login_checks_total{status="503"}': 0,
    }


def test_successful_log_ins_and_few_failures_lock_nobody(file: Path) -> None:
    async def question(client: Client) -> None:
        for _ in range(3):
            for _ in range(login.passwords.USER_FAILURES - 1):
                assert (await log_in(client, password=WRONG))[0] == 401
            assert (await log_in(client))[0] == 303

    ask(file, question)


def test_a_page_of_another_site_cannot_log_anybody_in(file: Path) -> None:
    async def question(client: Client) -> None:
        own = {"Host": "ward.example.org"}
        for headers in (
            {"Origin": "https://example.org"},
            {"Origin": "null"},
            {"Origin": "http://ward.example.org:81"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            assert (await log_in(client, **own, **headers))[0] == 403
        # A browser sends `Origin: null` if the policy of a page hides the address of the page.
        hidden = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
        for headers in ({"Origin": "http://ward.example.org"}, hidden, {}):
            assert (await log_in(client, **own, **headers))[0] == 303

    ask(file, question)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"user=ada&password=\xff", {}, 400),
        (b"user=ada&password=%ff", {}, 400),
        (b"a=1&" * 30, {}, 400),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400),
        (b"no deflate", {"Content-Encoding": "deflate"}, 400),
        (zlib.compress(b"a" * 50_000_000), {"Content-Encoding": "deflate"}, 413),
        (b"x" * 20_000, {}, 413),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"--a\r\n\r\n", {"Content-Type": "multipart/form-data; boundary=a"}, 415),
    ],
)
def test_a_form_that_cannot_be_read_is_an_error(
    file: Path, body: bytes, headers: dict[str, str], status: int
) -> None:
    sent = {"Content-Type": "application/x-www-form-urlencoded"} | headers

    async def question(client: Client) -> None:
        async with client.post("/login", data=body, headers=sent) as answer:
            assert answer.status == status

    ask(file, question)
    assert audit(file) == []


@pytest.mark.parametrize(
    "address",
    ["//example.org", "https://example.org", "/\\example.org", "\\/example.org", "/a\r\nX: y", ""],
)
def test_log_in_redirects_to_this_site_only(file: Path, address: str) -> None:
    async def question(client: Client) -> Any:
        return await log_in(client, next=address)

    status, headers, _ = ask(file, question)
    assert (status, headers["Location"]) == (303, "/")


def test_the_audit_names_who_opened_which_patient(file: Path) -> None:
    uris = {
        "/patients/17?stay=2019-02-01": "17",
        "/patients/-4": "-4",
        "//patients/18": "18",
        "/a/../%70atients/19/": "19",
        "/events?page=patient&pat_id=20&stay=2019-02-01": "20",
    }

    async def question(client: Client) -> None:
        cookie = (await log_in(client))[2]
        await log_in(client, password=WRONG, address="192.0.2.9")
        await log_in(client, user="<script>\n", address="192.0.2.9")
        for uri in (*uris, "/", "/patients", "/static/live.js", "/events?page=ward"):
            assert (await check(client, cookie, uri))[0] == 204
        for uri in uris:
            assert (await check(client, "", uri))[0] == 401
        await client.post("/logout", headers={"Cookie": cookie}, allow_redirects=False)

    ask(file, question)
    rows = [json.loads(line) for line in run("audit", LOGIN_FILE=str(file)).stdout.splitlines()]
    assert [(row["user"], row["action"]) for row in rows if row["action"] != "patient"] == [
        ("ada", "log-in"),
        ("ada", "log-in failed"),
        ("?", "log-in failed"),
        ("ada", "log-out"),
    ]
    opened = [row for row in rows if row["action"] == "patient"]
    assert {row["uri"]: row["patient"] for row in opened} == uris
    assert {(row["user"], row["address"]) for row in opened} == {("ada", "192.0.2.1")}


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit",
        "UPDATE audit SET user = 'bob'",
        "INSERT OR REPLACE INTO audit SELECT 1, at, 'bob', address, action, '', '' FROM audit",
        "REPLACE INTO audit (id, at, user, address, action, patient, uri)"
        " VALUES (1, '', '', '', '', '', '')",
    ],
)
def test_the_audit_is_append_only(file: Path, statement: str) -> None:
    async def question(client: Client) -> None:
        await log_in(client)

    ask(file, question)
    before = audit(file)
    with (
        closing(sqlite3.connect(file)) as db,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        db.execute(statement)
    assert audit(file) == before != []


def test_no_patient_page_is_admitted_while_the_audit_cannot_be_written(file: Path) -> None:
    async def question(client: Client) -> None:
        cookie = (await log_in(client))[2]
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            db.execute("DROP TABLE audit")
        assert (await check(client, cookie, "/patients/17"))[0] == 503
        assert (await check(client, cookie, "/"))[0] == 204

    ask(file, question)


@pytest.mark.parametrize(("key", "passes"), [("", False), ("/run/key", True)])
def test_a_program_with_a_token_passes_if_tokens_are_checked(
    file: Path, key: str, passes: bool
) -> None:
    async def question(client: Client) -> list[int]:
        token = {"Authorization": "Bearer abc"}
        return [
            (await check(client, who="program", **token))[0],
            (await check(client, who="person", **token))[0],
            (await check(client, who="program", Authorization="Basic abc"))[0],
            (await check(client, who="program"))[0],
            (await check(client, (await log_in(client))[2], who="program"))[0],
        ]

    statuses = ask(file, question, MODEL_TOKEN_KEY_FILE=key)
    assert statuses == [204 if passes else 401, 401, 401, 401, 204]


async def oauth2_proxy(request: web.Request) -> web.Response:
    """A server that answers like oauth2-proxy with --set-xauthrequest."""
    cookie = request.headers.get("Cookie", "")
    assert "Authorization" not in request.headers
    if cookie == "_oauth2_proxy=ada":
        return web.Response(status=202, headers={"X-Auth-Request-Email": "ada@example.org"})
    if cookie == "_oauth2_proxy=nameless":
        return web.Response(status=202)
    if cookie == "_oauth2_proxy=broken":
        return web.Response(status=500)
    return web.Response(status=401)


def test_an_oidc_proxy_replaces_the_built_in_users(file: Path) -> None:
    async def run() -> None:
        app = web.Application()
        app.router.add_get("/oauth2/auth", oauth2_proxy)
        async with (
            TestServer(app) as proxy,
            serving(file, OIDC_PROXY=f"http://127.0.0.1:{proxy.port}") as client,
        ):
            known = await check(client, "_oauth2_proxy=ada", "/patients/17")
            assert known == (204, "ada@example.org")
            assert (await check(client, "_oauth2_proxy=bob"))[0] == 401
            assert (await check(client))[0] == 401
            for cookie in ("nameless", "broken"):
                assert (await check(client, f"_oauth2_proxy={cookie}"))[0] == 503
            asked = client.get("/login?next=/patients/17?a=b&c=d", allow_redirects=False)
            async with asked as answer:
                assert answer.status == 302
                there = "/oauth2/start?rd=/patients/17%3Fa%3Db%26c%3Dd"
                assert answer.headers["Location"] == there
            assert (await log_in(client))[0] == 404
            await proxy.close()
            assert (await check(client, "_oauth2_proxy=ada"))[0] == 503

    asyncio.run(run())
    assert [(row["user"], row["patient"]) for row in audit(file)] == [("ada@example.org", "17")]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, False),
        ({"LOGIN": "on"}, True),
        ({"BIND_ADDRESS": "192.0.2.7"}, True),
        ({"TLS_ADDRESS": "::"}, True),
        ({"BIND_ADDRESS": "192.0.2.7", "LOGIN": "off"}, False),
        ({"LOGIN": "on", "OIDC_PROXY": "http://oauth2-proxy:4180"}, False),
    ],
)
def test_login_does_not_start_without_users_if_published(
    tmp_path: Path, settings: dict[str, str], refused: bool
) -> None:
    # The port is taken, so the program ends in each case. Its error shows how far it has come.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(LOGIN_FILE=str(tmp_path / "new.sqlite"), LOGIN_PORT=port, **settings)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert ("login add" in done.stderr) == refused
    assert (f"LOGIN_PORT={port}" in done.stderr) == (not refused)


def test_a_summary_counts_the_requests(file: Path) -> None:
    port = free_port()
    environ = os.environ | {"LOGIN_FILE": str(file), "LOGIN_PORT": str(port), "LOG_FORMAT": "json"}
    with subprocess.Popen(
        [sys.executable, "-m", "login"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while (status := status_of(f"http://127.0.0.1:{port}/check/person")) is None:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            process.terminate()
        output, _ = process.communicate(timeout=30)
    assert status == 401
    lines = [json.loads(line) for line in output.splitlines()]
    [summary] = [line for line in lines if "1 requests checked" in line["message"]]
    assert (summary["level"], summary["logger"]) == ("INFO", "login")


def status_of(url: str) -> int | None:
    """The status of the answer; None if the server cannot be reached."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "short"), ("a da", SECRET)],
)
def test_an_invalid_user_is_reported_in_one_line(tmp_path: Path, name: str, password: str) -> None:
    path = tmp_path / "login.sqlite"
    done = run("add", name, stdin=f"{password}\n", LOGIN_FILE=str(path))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert run("users", LOGIN_FILE=str(path)).stdout.strip() == ""


def test_passwords_are_stored_as_argon2_in_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "login.sqlite"
    done = run("add", "Ada", stdin=f"{SECRET}\n", LOGIN_FILE=str(file))
    assert (done.returncode, done.stdout) == (0, "ada: added\n")
    assert file.stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(file)) as db:
        [(name, stored)] = db.execute("SELECT name, password FROM users").fetchall()
    assert name == "ada"
    assert stored.startswith("$argon2id$")
    assert SECRET.encode() not in file.read_bytes()
