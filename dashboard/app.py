"""The pages and their addresses."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

import aiohttp
from aiohttp import web
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from dashboard import events, hosts
from dashboard.database import Database, DatabaseDown, Stay, StayKey
from dashboard.poller import Poller, TooManyPages
from dashboard.rendering import Pages
from dashboard.settings import Settings
from dashboard.sources import Queues, Services

PAT_ID = r"-?\d{1,19}"
STATIC = Path(__file__).parent / "static"
POLLER = web.AppKey("poller", Poller)
PAGES = web.AppKey("pages", Pages)
# A first visitor waits for the first round, but not for ever.
FIRST_ROUND_SECONDS = 8.0
ANSWER_SECONDS = 2.0

# Nothing from elsewhere, nothing inline: a name or a reason with HTML in it stays text.
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; font-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(settings: Settings) -> web.Application:
    """The dashboard, its poller started and stopped with it."""
    names = {"localhost", "dashboard", *settings.allowed_hosts}
    app = web.Application(middlewares=[hosts.only(names), _errors])
    app[PAGES] = Pages()
    app.cleanup_ctx.append(lambda app: _poll(app, settings))
    app.on_response_prepare.append(_secure)
    app.router.add_get("/", ward)
    app.router.add_get("/patients", find)
    app.router.add_get(rf"/patients/{{pat_id:{PAT_ID}}}", patient)
    app.router.add_get("/pipeline", pipeline)
    app.router.add_get("/pipeline.json", pipeline_figures)
    app.router.add_get("/events", live)
    app.router.add_get("/health", health)
    app.router.add_static("/static/", STATIC)
    return app


async def _poll(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    database = Database(settings.database_url, settings.database_password)
    redis = Redis.from_url(
        settings.redis_url,
        password=settings.redis_password,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        services = Services(session, settings.hospital_url, settings.model_url)
        app[POLLER] = Poller(database, Queues(redis), services, app[PAGES])
        task = asyncio.create_task(app[POLLER].run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await redis.aclose()


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY)
    if request.path.startswith("/static/"):
        response.headers["Cache-Control"] = "no-cache"


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound as error:
        return _problem(request, 404, error.text or "")
    except DatabaseDown as error:
        return _problem(request, 503, f"The database cannot be read: {error}.")
    except TooManyPages:
        return _problem(request, 503, "Too many different patients' pages are open just now.")


def _problem(request: web.Request, status: int, text: str) -> web.Response:
    values = {"status": status, "text": text, "page": None, "since": "", "live": ""}
    html = request.app[PAGES].page("problem", **values)
    return web.Response(text=html, status=status, content_type="text/html")


async def _ready(request: web.Request) -> Poller:
    poller = request.app[POLLER]
    with suppress(TimeoutError):
        await asyncio.wait_for(poller.polled.wait(), FIRST_ROUND_SECONDS)
    return poller


def _page(request: web.Request, name: str, **values: object) -> web.Response:
    html = request.app[PAGES].page(name, **values)
    response = web.Response(text=html, content_type="text/html")
    response.headers["Cache-Control"] = "no-store"
    response.enable_compression()
    return response


def _since(poller: Poller, version: int) -> str:
    return f"{poller.epoch}-{version}"


async def ward(request: web.Request) -> web.Response:
    """Everyone in the ICU."""
    poller = await _ready(request)
    content = poller.ward.content
    return _page(
        request,
        "ward",
        since=_since(poller, poller.ward.version),
        live="page=ward",
        page=content.get("page"),
        ward=content.get("ward"),
        signs=poller.signs,
        beds={key: fields for key, fields in content.items() if key.startswith("ward:")},
        gone={key: fields for key, fields in content.items() if key.startswith("gone:")},
    )


async def pipeline(request: web.Request) -> web.Response:
    """How the messages flow."""
    poller = await _ready(request)
    content = poller.pipeline.content
    return _page(
        request,
        "pipeline",
        since=_since(poller, poller.pipeline.version),
        live="page=pipeline",
        page=content.get("page"),
        figures=content.get("figures"),
        services={key: fields for key, fields in content.items() if key.startswith("service:")},
        reasons={key: fields for key, fields in content.items() if key.startswith("reason:")},
    )


async def pipeline_figures(request: web.Request) -> web.Response:
    """What stands on the pipeline page, for programs."""
    poller = await _ready(request)
    return web.json_response(poller.pipeline.content, headers={"Cache-Control": "no-store"})


async def find(request: web.Request) -> web.Response:
    """The form on every page: to a patient by number."""
    number = request.query.get("pat_id", "").strip()
    if not number.removeprefix("-").isdecimal():
        raise web.HTTPNotFound(text=f"A patient's number has digits only; this is “{number}”.")
    raise web.HTTPSeeOther(f"/patients/{number}")


async def patient(request: web.Request) -> web.Response:
    """One stay of one patient: the newest, or the one that began on ?stay=YYYY-MM-DD."""
    poller = await _ready(request)
    stay, stays = await _stay(request, poller)
    watch = await poller.watch(stay.key)
    content = watch.topic.content
    lists = {
        name: {key: fields for key, fields in content.items() if key.startswith(f"{name}:")}
        for name in ("vital", "feature", "rejected")
    }
    return _page(
        request,
        "patient",
        # From nothing, so that the first event brings the curves.
        since="",
        live=f"page=patient&pat_id={stay.key.pat_id}&stay={stay.key.admitted.isoformat()}",
        page=content.get("page"),
        patient=content.get("patient"),
        stay=stay,
        stays=stays,
        **lists,
    )


async def _stay(request: web.Request, poller: Poller) -> tuple[Stay, list[Stay]]:
    pat_id = _number(request.match_info["pat_id"])
    stays = await poller.stays_of(pat_id)
    if not stays:
        raise web.HTTPNotFound(text=f"No stay of patient {pat_id} is stored in this stream.")
    wanted = request.query.get("stay")
    for stay in stays:
        if wanted in (None, stay.key.admitted.isoformat()):
            return stay, stays
    raise web.HTTPNotFound(text=f"Patient {pat_id} has no stay that began on {wanted}.")


async def live(request: web.Request) -> web.StreamResponse:
    """GET /events?page=ward|pipeline|patient[&pat_id=…&stay=…][&since=id]"""
    poller = await _ready(request)
    page = request.query.get("page")
    if page == "ward":
        return await events.stream(request, poller.ward, poller.epoch)
    if page == "pipeline":
        return await events.stream(request, poller.pipeline, poller.epoch)
    if page != "patient":
        raise web.HTTPNotFound(text="/events has page=ward, pipeline or patient.")
    watch = await poller.watch(_key(request))
    watch.readers += 1
    try:
        return await events.stream(request, watch.topic, poller.epoch)
    finally:
        watch.readers -= 1


def _key(request: web.Request) -> StayKey:
    pat_id = _number(request.query.get("pat_id", ""))
    try:
        return StayKey(pat_id, date.fromisoformat(request.query.get("stay", "")))
    except ValueError:
        raise web.HTTPNotFound(text="page=patient needs pat_id and stay=YYYY-MM-DD.") from None


def _number(text: str) -> int:
    """A patient's number, as far as the database has room for it. Raises HTTPNotFound."""
    if re.fullmatch(PAT_ID, text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    raise web.HTTPNotFound(text=f"“{text[:40]}” is not a patient's number.")


async def health(request: web.Request) -> web.Response:
    """200 as long as the dashboard itself runs: what else is down is on its pages."""
    services = request.app[POLLER].services.values()
    return web.json_response(
        {"status": "ok", "services": {service.name: service.state for service in services}}
    )
