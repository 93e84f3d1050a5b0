"""The web application: routes, middleware, and the start and stop of the poller."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import generate_latest

from dashboard import drift, lists, model_pages, pages
from dashboard.acknowledge import acknowledge, patient_of_form
from dashboard.acknowledger import Acknowledger
from dashboard.connection import DatabaseDown
from dashboard.database import Database
from dashboard.http_services import Services
from dashboard.keys import ACKNOWLEDGER, LOGIN, PAGES, POLLER
from dashboard.poller import Poller
from dashboard.queue_state import Queues
from dashboard.rendering import Pages
from dashboard.sessions import Login
from dashboard.settings import Settings
from dashboard.shelf import TooManyPages
from wire import hosts, keys

STATIC = Path(__file__).parent / "static"
ANSWER_SECONDS = 2.0
PAT_ID = r"-?\d{1,19}"

# Inline scripts and other origins are forbidden, in case a name or a reason contains HTML.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # With `no-referrer`, a browser sends `Origin: null` with a form; `wire.hosts` may reject that.
    "Referrer-Policy": "same-origin",
}

# Errors whose text the page shows.
REPORTED = (
    *(web.HTTPBadRequest, web.HTTPForbidden, web.HTTPNotFound, web.HTTPConflict),
    *(web.HTTPBadGateway, web.HTTPUnsupportedMediaType),
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(settings: Settings) -> web.Application:
    """Returns the dashboard as an application that runs its poller."""
    names = {"localhost", "dashboard", *settings.allowed_hosts}
    app = web.Application(middlewares=[hosts.only(names), _errors])
    app[PAGES] = Pages()
    app.cleanup_ctx.append(lambda app: _poll(app, settings))
    app.on_response_prepare.append(_secure)
    app.router.add_get("/", _with(pages.ward, "stream"))
    app.router.add_get("/patients", _with(lists.patients, "stream", "q", "show", "page"))
    app.router.add_get(rf"/patients/{{pat_id:{PAT_ID}}}", _with(pages.patient, "stream", "stay"))
    app.router.add_post(rf"/patients/{{pat_id:{PAT_ID}}}/acknowledge", acknowledge)
    app.router.add_get(rf"/patients/{{pat_id:{PAT_ID}}}/acknowledge", patient_of_form)
    app.router.add_get("/pipeline", _with(pages.pipeline))
    app.router.add_get("/pipeline.json", _with(pages.pipeline_figures))
    app.router.add_get("/drift", _with(drift.drift, "stream"))
    app.router.add_get("/models", _with(model_pages.models))
    app.router.add_get("/models/{name}/{version}", _with(model_pages.model))
    events = _with(pages.live, "page", "stream", "pat_id", "stay", "since")
    app.router.add_get("/events", events, allow_head=False)
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    app.router.add_static("/static/", STATIC)
    return app


async def _poll(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    database = Database(settings.database_url, settings.database_password_file.secret)
    redis = keys.async_connection(
        settings.redis_url,
        settings.redis_password_file.secret,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
    )
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        services = Services(
            session,
            settings.hospital_url.removesuffix("/sub"),
            settings.model_url,
            settings.model_token_file,
        )
        if settings.acknowledge_url:
            app[ACKNOWLEDGER] = Acknowledger(
                session, settings.acknowledge_url, settings.acknowledge_token_file
            )
        if settings.login_url:
            app[LOGIN] = Login(session, settings.login_url)
        app[POLLER] = Poller(database, Queues(redis), services, app[PAGES])
        task = asyncio.create_task(app[POLLER].run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await redis.aclose()


def _with(handler: Handler, *parameters: str) -> Handler:
    """The handler of a page whose query may have these parameters. It rejects others, because the
    answer to a misspelt one, such as `?steam=`, would look right."""

    async def checked(request: web.Request) -> web.StreamResponse:
        for unknown in sorted(request.query.keys() - set(parameters)):
            raise web.HTTPBadRequest(text=f"{request.path} has no parameter “{unknown[:40]}”.")
        return await handler(request)

    return checked


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY)
    if request.path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-cache"


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        response = _problem(request, 405, f"{request.path} does not support {request.method}.")
        response.headers["Allow"] = error.headers["Allow"]
        return response
    except REPORTED as error:
        return _problem(request, error.status, error.text or "")
    except DatabaseDown as error:
        return _problem(request, 503, f"The database {error}.")
    except TooManyPages:
        return _problem(
            request, 503, "Too many different pages are open. Please try again in a minute."
        )


def _problem(request: web.Request, status: int, text: str) -> web.Response:
    return pages.render(request, "problem", status=status, code=status, text=text)


async def health(request: web.Request) -> web.Response:
    """Answers 200 while the dashboard runs, with the states of the other services."""
    services = request.app[POLLER].judge.board.services.values()
    return web.json_response(
        {"status": "ok", "services": {service.name: service.state for service in services}}
    )


async def metrics(request: web.Request) -> web.Response:
    """All metrics in Prometheus' text format."""
    return web.Response(
        body=generate_latest(), headers={"Content-Type": "text/plain; version=0.0.4"}
    )
