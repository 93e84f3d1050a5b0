"""Serves the login and logout pages, and answers nginx's `auth_request`."""

import logging
import posixpath
import sqlite3
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler
from jinja2 import Environment, FileSystemLoader
from prometheus_client import generate_latest

from login.metrics import ATTEMPTS, CHECKS
from login.oidc import SIGN_OUT, OidcProxy, ProxyError, sign_in
from login.passwords import LockedOut, Passwords, user_name
from login.sessions import Sessions
from login.settings import Settings
from login.store import Store
from wire import hosts
from wire.bodies import read_form

log = logging.getLogger("login")

PAGE = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True
).get_template("login.html")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}
# Maximum length of a URI in the audit log.
URI_MAX = 300


class Login:
    """The handlers of all routes."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.oidc = OidcProxy(settings.oidc_proxy) if settings.oidc_proxy else None
        self._store = store
        self._passwords = Passwords(store)
        self._sessions = Sessions(store, settings.session_hours)
        self._tokens = bool(settings.model_token_key_file)

    async def page(self, request: web.Request) -> web.Response:
        """GET /login?next=ADDRESS: the login page, or a redirect to the OIDC proxy if there is one.
        The address is not encoded."""
        address = next_address(request.query_string.partition("next=")[2])
        if self.oidc is not None:
            return web.Response(status=302, headers={"Location": sign_in(address)})
        return _page(200, address, user=self._sessions.user(request))

    async def log_in(self, request: web.Request) -> web.Response:
        """POST /login with user, password and next: checks the password and starts a session.
        Answers 404 if an OIDC proxy replaces the login page."""
        if self.oidc is not None:
            raise web.HTTPNotFound
        form = await read_form(request)
        address = next_address(form.get("next", ""))
        source = _source(request)
        try:
            user = user_name(form.get("user", ""))
            right = await self._passwords.check(user, form.get("password", ""), source)
        except LockedOut as error:
            ATTEMPTS.labels("locked_out").inc()
            self._record(user, source, "locked out")
            return _page(429, address, problem=str(error), retry_after=error.seconds)
        except ValueError:
            user, right = "?", False
        if not right:
            ATTEMPTS.labels("failure").inc()
            self._record(user, source, "log-in failed")
            return _page(401, address, problem="wrong user or password")
        ATTEMPTS.labels("success").inc()
        self._record(user, source, "log-in")
        response = web.Response(status=303, headers={"Location": address} | HEADERS)
        self._sessions.begin(request, response, user)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """POST /logout: ends the session."""
        if self.oidc is not None:
            return web.Response(status=303, headers={"Location": SIGN_OUT})
        if user := self._sessions.user(request):
            self._record(user, _source(request), "log-out")
        response = web.Response(status=303, headers={"Location": "/login"} | HEADERS)
        self._sessions.end(request, response)
        return response

    async def check_person(self, request: web.Request) -> web.Response:
        """Answers 204 with the user's name in X-User if the request has a session, and 401
        otherwise. Records the patient that the request shows."""
        if self.oidc is not None:
            user = await self.oidc.user(request)
        else:
            user = self._sessions.user(request)
        if user is None:
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        uri = _header(request, "X-Original-URI")
        if patient := patient_of(uri):
            self._record(user, _source(request), "patient", patient, uri[:URI_MAX])
        return web.Response(status=204, headers={"X-User": user})

    async def check_program(self, request: web.Request) -> web.Response:
        """Answers like `check_person`. If MODEL_TOKEN_KEY_FILE is set, answers 204 to a request
        with a bearer token, which another service checks."""
        scheme = request.headers.get("Authorization", "").partition(" ")[0]
        if self._tokens and scheme.lower() == "bearer":
            return web.Response(status=204)
        return await self.check_person(request)

    def _record(
        self, user: str, address: str, action: str, patient: str = "", uri: str = ""
    ) -> None:
        self._store.record(user, address, action, patient, uri)
        log.info("audit: %s %s from %s %s", user, action, address, patient)


def create_app(settings: Settings, store: Store) -> web.Application:
    login = Login(settings, store)
    app = web.Application(client_max_size=16_384, middlewares=[hosts.only(None), _unavailable])
    if login.oidc is not None:
        app.cleanup_ctx.append(login.oidc.connection)
    app.router.add_get("/login", login.page)
    app.router.add_post("/login", login.log_in)
    app.router.add_post("/logout", login.log_out)
    app.router.add_get("/check/person", login.check_person)
    app.router.add_get("/check/program", login.check_program)
    app.router.add_get("/health", _health)
    app.router.add_get("/metrics", _metrics)
    return app


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _metrics(request: web.Request) -> web.Response:
    """All metrics in Prometheus' text format."""
    return web.Response(
        body=generate_latest(), headers={"Content-Type": "text/plain; version=0.0.4"}
    )


@web.middleware
async def _unavailable(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers 503 if the SQLite file or the OIDC proxy fails, so that nginx rejects requests that
    cannot be checked or recorded. Counts all checks."""
    response: web.StreamResponse
    try:
        response = await handler(request)
    except (sqlite3.Error, ProxyError) as error:
        log.error("%s: %s", request.path, error)
        response = web.Response(status=503, text="log-in is not available\n")
    if request.path.startswith("/check/"):
        CHECKS.labels(str(response.status)).inc()
    return response


def _page(
    status: int, address: str, user: str | None = None, problem: str = "", retry_after: int = 0
) -> web.Response:
    text = PAGE.render(address=address, user=user, problem=problem)
    headers = HEADERS | ({"Retry-After": str(retry_after)} if retry_after else {})
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def next_address(text: str) -> str:
    """The address to redirect to: `text` if it is on this site and not the login or logout page,
    otherwise "/".

    >>> next_address("/patients/17?stay=2019-02-01"), next_address("//example.org")
    ('/patients/17?stay=2019-02-01', '/')
    >>> next_address("https://example.org"), next_address(r"/\\example.org"), next_address("/login")
    ('/', '/', '/')
    """
    printable = text.isascii() and text.isprintable() and "\\" not in text
    if not printable or not text.startswith("/") or text.startswith(("//", "/login", "/logout")):
        return "/"
    return text


def patient_of(uri: str) -> str:
    """The number of the patient whose values a URI shows; empty if it shows none. If the URI
    cannot be parsed, returns its first URI_MAX characters, so that the request is recorded.

    >>> patient_of("/patients/17?stay=2019-02-01"), patient_of("/x/..//%70atients/17")
    ('17', '17')
    >>> patient_of("/patients/17/acknowledge")
    '17'
    >>> patient_of("/events?page=patient&pat_id=17&stay=2019-02-01"), patient_of("/patients?q=17")
    ('17', '')
    """
    try:
        parts = urlsplit(f"http://host/{uri.lstrip('/')}")
    except ValueError:
        return uri[:URI_MAX]
    path = posixpath.normpath(unquote(parts.path))
    if path.startswith("/patients/"):
        return path.removeprefix("/patients/").partition("/")[0][:64]
    if path == "/events":
        return parse_qs(parts.query).get("pat_id", [""])[0][:64]
    return ""


def _source(request: web.Request) -> str:
    """The client's address, as nginx reports it."""
    return (_header(request, "X-Forwarded-For") or request.remote or "?")[:64]


def _header(request: web.Request, name: str) -> str:
    """A header as text that can be stored: each byte that is not UTF-8 is escaped."""
    return request.headers.get(name, "").encode(errors="backslashreplace").decode()
