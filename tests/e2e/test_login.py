"""Tests the log-in of browsers and programs through nginx in compose, and guessed passwords."""

import json
import os
import re
import secrets
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright import sync_api as playwright

from embedded.programs import ROOT
from embedded.stack import free_port
from login.passwords import ADDRESS_FAILURES, USER_FAILURES
from tests.support.servers import require_docker

PROJECT = "icu-login-test"
SECRET = "correct horse battery"  # noqa: S105
PAGES = {"Accept": "text/html"}

# Longer than nginx waits for login, because a password check takes long on a busy machine.
BROWSER_TIMEOUT = 150_000  # milliseconds

playwright.expect.set_options(timeout=BROWSER_TIMEOUT)
pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str

    @property
    def cookie(self) -> str:
        """The cookies of a response, in the form of a Cookie header."""
        found = SimpleCookie(self.headers.get("set-cookie", ""))
        return "; ".join(f"{name}={morsel.value}" for name, morsel in found.items())


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Stack:
    """Login and nginx (with and without TLS) of docker-compose.yml, in front of an echo server."""

    def __init__(self, folder: Path) -> None:
        key = folder / "key"
        key.write_text(secrets.token_hex(32))
        self.port, self.tls_port = free_port(), free_port()
        self.environment = {
            "PORT": str(self.port),
            "TLS_PORT": str(self.tls_port),
            "LOGIN": "on",
            "LOG_FORMAT": "json",
            "MODEL_TOKEN_KEY": str(key),
            # nginx trusts the networks of the engine, so a test can choose the client's address.
            "TRUSTED_PROXIES": "172.16.0.0/12, 192.168.0.0/16, 10.0.0.0/8",
            "INTERNAL_GATEWAY": "nat",
        }
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    def compose(
        self, *arguments: str, stdin: str = "", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        files = ("-f", "docker-compose.yml", "-f", "tests/support/login_stack.yml")
        return subprocess.run(
            ["docker", "compose", "--project-name", PROJECT, *files, *arguments],
            cwd=ROOT,
            env=os.environ | self.environment | environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self) -> None:
        services = ("--no-deps", "modelapi", "login", "certificate", "nginx", "tls")
        done = self.compose("--profile", "tls", "up", "--detach", "--wait", *services)
        assert done.returncode == 0, done.stderr[-3000:]

    def add(self, user: str, secret: str = SECRET) -> None:
        command = ("python", "-m", "login", "add", user)
        done = self.compose("run", "--rm", "--no-deps", "-T", "login", *command, stdin=secret)
        assert done.returncode == 0, done.stderr

    def ask(
        self,
        path: str,
        form: dict[str, str] | None = None,
        tls: bool = False,
        address: str = "192.0.2.1",
        **headers: str,
    ) -> Answer:
        opener = urllib.request.build_opener(
            NoRedirects, urllib.request.HTTPSHandler(context=self._tls)
        )
        place = f"https://localhost:{self.tls_port}" if tls else f"http://localhost:{self.port}"
        request = urllib.request.Request(  # noqa: S310
            f"{place}{path}",
            form and urllib.parse.urlencode(form).encode(),
            {"X-Forwarded-For": address, **headers},
        )
        try:
            with opener.open(request, timeout=150) as answer:
                found = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                found = error.code, error.headers, error.read()
        named = {name.lower(): value for name, value in found[1].items()}
        return Answer(found[0], named, found[2].decode())

    def log_in(self, user: str, secret: str = SECRET, **options: Any) -> Answer:
        return self.ask("/login", {"user": user, "password": secret, "next": "/"}, **options)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the users ada, bob and eve."""
    require_docker()
    stack = Stack(tmp_path_factory.mktemp("key"))
    down = ("--profile", "*", "down", "--volumes", "--remove-orphans")
    stack.compose(*down)
    try:
        built = stack.compose("build", "--quiet", "login", "modelapi", "nginx", "tls")
        assert built.returncode == 0, built.stderr[-3000:]
        refused = stack.compose("run", "--rm", "--no-deps", "login")
        assert refused.returncode == 1
        assert re.search(r"^login: .*login add NAME", refused.stderr, re.MULTILINE)
        for user in ("ada", "bob", "eve"):
            stack.add(user)
        stack.up()
        yield stack
    finally:
        stack.compose(*down)


PATHS = [
    *("/", "/patients", "/patients/17", "/pipeline", "/events?page=ward", "/static/live.js"),
    *("/services", "/models", "/nowhere", "/pipeline.json"),
    *("/api/model", "/v2/models", "/docs", "/openapi.json", "/fhir/Patient", "/messages"),
    *("//patients/17", "/x/../patients/17", "/login/../patients/17", "/api/../patients/17"),
    *("/%70atients/17", "/health/../patients/17", "/health/x", "/login/x", "/oauth2/auth"),
]


@pytest.mark.parametrize("tls", [False, True])
def test_nothing_is_shown_without_a_session(stack: Stack, tls: bool) -> None:
    forged = {"X-User": "ada", "X-Original-URI": "/health", "Cookie": "icu-session=ada"}
    for path in PATHS:
        answer = stack.ask(path, tls=tls, **forged)
        assert answer.status == 401, path
        assert json.loads(answer.body)["status"] == 401
        assert answer.headers["content-type"] == "application/problem+json"
        answer = stack.ask(path, tls=tls, **forged, **PAGES)
        assert (answer.status, answer.headers["location"]) == (302, f"/login?next={path}")
    for path in ("/login/check/person", "/login/check/program", "/check/person", "/problem/login"):
        assert stack.ask(path, tls=tls).status in (401, 404), path
    assert stack.ask("/metrics", tls=tls).status == 404
    assert stack.ask("/health", tls=tls).status == 200
    assert stack.ask("/", tls=tls, form={"a": "b"}).status == 401


@pytest.mark.parametrize("tls", [False, True])
def test_a_session_opens_every_page(stack: Stack, tls: bool) -> None:
    begun = stack.log_in("ada", tls=tls)
    assert begun.status == 303
    assert ("; secure" in begun.headers["set-cookie"].lower()) == tls
    for path in ("/patients/17?stay=2019-02-01", "/api/model", "/fhir/Patient", "/messages"):
        answer = stack.ask(path, tls=tls, Cookie=begun.cookie, **{"X-User": "root"})
        assert answer.status == 200, path
        seen = json.loads(answer.body)
        assert seen["path"] == path
        assert seen["headers"]["x-user"] == "ada"
        assert seen["headers"]["x-forwarded-for"] == "192.0.2.1"
    assert stack.ask("/services", tls=tls, Cookie=begun.cookie).status == 200
    # A session that began with TLS is not valid without TLS, and vice versa.
    assert stack.ask("/", tls=not tls, Cookie=begun.cookie).status == 401


def test_a_program_with_a_token_needs_no_session(stack: Stack) -> None:
    token = {"Authorization": "Bearer abc"}
    for path in ("/api/model", "/v2/models/m/infer", "/openapi.json", "/fhir/Patient", "/messages"):
        answer = stack.ask(path, **token)
        assert answer.status == 200, path
        assert json.loads(answer.body)["headers"]["authorization"] == "Bearer abc"
    for path in ("/", "/patients/17", "/services", "/api/../patients/17", "/events?x=/api/"):
        assert stack.ask(path, **token).status == 401, path


def visit(page: Any, address: str) -> None:
    """Opens a page. On a busy machine nginx may not connect to login within its 2 s and answers
    with an error; then opens the page again.
    """
    while page.goto(address).status >= 500:
        pass


def submit(page: Any, address: str, user: str, secret: str) -> int:
    """Submits the form of the log-in page at `address`, which is open; returns the status of
    login's answer."""
    while True:
        page.get_by_label("User").fill(user)
        page.get_by_label("Password").fill(secret)
        with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
            page.get_by_role("button", name="Log in").click()
        if answered.value.status < 500:
            return int(answered.value.status)
        visit(page, address)


def test_a_browser_logs_in_and_out(stack: Stack, browser: Any) -> None:
    page = browser.new_page(ignore_https_errors=True)
    page.set_default_timeout(BROWSER_TIMEOUT)
    address = f"https://localhost:{stack.tls_port}/patients/17?stay=2019-02-01&x=1"
    visit(page, address)
    assert "/login" in page.url
    begun = page.url
    assert submit(page, begun, "Ada", "a wrong one") == 401
    playwright.expect(page.get_by_role("alert")).to_be_visible()
    assert submit(page, begun, "Ada", SECRET) == 303
    page.wait_for_url(address)
    playwright.expect(page.locator("#user")).to_have_text("ada")
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["secure"]
    assert cookie["sameSite"] == "Lax"
    assert page.evaluate("document.cookie") == ""
    kept = f"{cookie['name']}={cookie['value']}"
    assert stack.ask("/", tls=True, Cookie=kept).status == 200
    visit(page, f"https://localhost:{stack.tls_port}/login")
    playwright.expect(page.get_by_text("logged in as ada")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    playwright.expect(page.get_by_label("User")).to_be_visible()
    assert page.context.cookies() == []
    assert stack.ask("/", tls=True, Cookie=kept).status == 401
    visit(page, address)
    assert "/login" in page.url
    page.close()
    rows = [
        json.loads(line)
        for line in stack.compose(
            "exec", "-T", "login", "python", "-m", "login", "audit"
        ).stdout.splitlines()
    ]
    assert [row["user"] for row in rows if row["uri"].endswith("&x=1")] == ["ada"]


def test_guessed_passwords_lock_the_user(stack: Stack) -> None:
    def guess(number: int) -> int:
        return stack.log_in("bob", f"guess {number}", address=f"198.51.100.{number}").status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(guess, range(40)))
    assert set(statuses) == {401, 429}
    assert statuses.count(401) == USER_FAILURES
    # The right password is rejected too, from any address.
    locked = stack.log_in("bob", address="203.0.113.1")
    assert locked.status == 429
    assert int(locked.headers["retry-after"]) > 60
    assert stack.log_in("eve", address="203.0.113.1").status == 303
    # A password that the operator sets is valid at once, although the user is locked.
    stack.add("bob")
    assert stack.log_in("bob", address="203.0.113.2").status == 303


def test_an_address_that_tries_many_names_is_locked(stack: Stack) -> None:
    def guess(number: int) -> int:
        return stack.log_in(f"user{number}", "a guess", address="198.51.100.77").status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(guess, range(30)))
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= ADDRESS_FAILURES
    assert stack.log_in("eve", address="203.0.113.3").status == 303


def test_a_trusted_proxy_names_the_client(stack: Stack) -> None:
    cookie = stack.log_in("ada").cookie
    for sent, seen in (
        ("198.51.100.4", "198.51.100.4"),
        ("203.0.113.9, 198.51.100.4", "198.51.100.4"),
        ("198.51.100.4, 10.0.0.7", "198.51.100.4"),
    ):
        answer = stack.ask("/patients/1", address=sent, Cookie=cookie)
        assert json.loads(answer.body)["headers"]["x-forwarded-for"] == seen
    # The X-Forwarded-Proto of the proxy is trusted as well.
    secure = stack.log_in("ada", **{"X-Forwarded-Proto": "https"})
    assert secure.cookie.startswith("__Host-")


def test_the_log_of_nginx_is_json(stack: Stack) -> None:
    cookie = stack.log_in("ada").cookie
    stack.ask('/patients/17?"quoted"', Cookie=cookie)
    for address in (
        "/patients?q=Doe&page=1",
        "/patients?page=1&q=Doe",
        "/login?next=/patients?q=Doe",
    ):
        stack.ask(address, Cookie=cookie)
    lines = stack.compose("logs", "--no-log-prefix", "--no-color", "nginx").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows
    for row in rows:
        assert {"time", "level", "service", "logger", "message", "status"} <= row.keys()
        assert row["service"] == "nginx"
    assert [row["user"] for row in rows if '"quoted"' in row["message"]] == ["ada"]
    # A search may contain a patient's name.
    assert not [row for row in rows if "Doe" in row["message"]]
    assert any("/patients?q=*&page=1" in row["message"] for row in rows)


def test_nothing_is_shown_while_login_is_down(stack: Stack) -> None:
    cookie = stack.log_in("ada").cookie
    assert stack.ask("/", Cookie=cookie).status == 200
    stack.compose("stop", "login")
    try:
        answer = stack.ask("/", Cookie=cookie)
        assert answer.status == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert stack.ask("/health").status == 200
        assert stack.ask("/api/model", Authorization="Bearer abc").status == 500
    finally:
        stack.up()
    # Sessions remain valid after a restart of login. nginx may use login's old address for 2 s.
    deadline = time.monotonic() + 60
    while stack.ask("/", Cookie=cookie).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_published_service_requires_a_log_in_by_default(stack: Stack) -> None:
    """Only the generated configuration is checked; nothing is published."""
    show = "sed '$d' /start.sh | sh && cat /tmp/login.conf"
    command = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh")
    for environment, on in (
        ({"LOGIN": ""}, False),
        ({"LOGIN": "", "BIND_ADDRESS": "192.0.2.7"}, True),
        ({"LOGIN": "auto", "BIND_ADDRESS": "0.0.0.0"}, True),  # noqa: S104
        ({"LOGIN": "off", "BIND_ADDRESS": "192.0.2.7"}, False),
    ):
        done = stack.compose(*command, "nginx", "-c", show, **environment)
        assert done.returncode == 0, done.stderr
        assert ("parts/login.conf" in done.stdout) == on, environment
    done = stack.compose(*command, "tls", "-c", show, LOGIN="", TLS_ADDRESS="192.0.2.7")
    assert "parts/login.conf" in done.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOGIN", "maybe"),
        ("LOG_FORMAT", "xml"),
        ("TRUSTED_PROXIES", "10.0.0.0/8; evil"),
        ("OIDC_PROXY", "http://a/b"),
        ("OIDC_PROXY", "http://a;evil"),
        ("ALLOWED_HOSTS", "a;b"),
    ],
)
def test_an_invalid_setting_of_nginx_is_reported_in_one_line(
    stack: Stack, name: str, value: str
) -> None:
    done = stack.compose("run", "--rm", "--no-deps", "-T", "nginx", **{name: value})
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if f"nginx: {name}={value}: " in line]
