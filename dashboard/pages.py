"""The live pages: ward, patient, pipeline."""

import asyncio
import re
from contextlib import suppress
from datetime import date

from aiohttp import web

from dashboard import events
from dashboard.keys import ACKNOWLEDGER, PAGES, POLLER
from dashboard.poller import Poller
from dashboard.rows import Stay, StayKey
from dashboard.topic import Fields
from dashboard.views import View, ViewKey, WardView

STREAM = re.compile(r"[0-9A-Za-z_-]{1,32}")
# Maximum wait for the first round after a start.
FIRST_ROUND_SECONDS = 8.0


async def ready(request: web.Request) -> Poller:
    """Returns the poller after its first round, or after FIRST_ROUND_SECONDS."""
    poller = request.app[POLLER]
    with suppress(TimeoutError):
        await asyncio.wait_for(poller.polled.wait(), FIRST_ROUND_SECONDS)
    return poller


def render(
    request: web.Request,
    name: str,
    *,
    status: int = 200,
    page: Fields | None = None,
    live: str = "",
    since: str = "",
    query: str = "",
    **values: object,
) -> web.Response:
    """Renders the template `name`.html.

    page: the fields of every page. live: the query string for /events; empty for a page without
    live updates. since: the id of the last event that the page includes. query: the query string
    that selects the stream.
    """
    # nginx sends this header if users must log in.
    user = request.headers.get("X-User", "")
    common = {"page": page, "live": live, "since": since, "query": query, "user": user}
    html = request.app[PAGES].page(name, **common, **values)
    body = html.encode("utf-8", "replace")  # a name may contain a lone surrogate
    response = web.Response(body=body, status=status, content_type="text/html", charset="utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.enable_compression()
    return response


def stream_of(request: web.Request, poller: Poller) -> str | None:
    """The stream that ?stream= names; None for the current stream. Raises HTTPNotFound."""
    name = request.query.get("stream", "")
    if not name:
        return None
    if name not in poller.state.streams:
        raise web.HTTPNotFound(text=f"No stream “{name[:40]}” is stored.")
    return name


async def view_of(poller: Poller, key: ViewKey) -> View:
    """Returns the view of a page, which is kept up to date while the page is open. Raises
    DatabaseDown and TooManyPages.
    """
    view = poller.shelf.views.get(key)
    if view is None:
        view = poller.shelf.make(key)
        await poller.open(view)
        view = poller.shelf.views[key]
    view.touch()
    return view


async def ward(request: web.Request) -> web.Response:
    """Shows the patients in the ICU with the highest risk, and the latest discharges."""
    poller = await ready(request)
    stream = stream_of(request, poller)
    view = await view_of(poller, ViewKey(stream, None))
    assert isinstance(view, WardView)
    content = view.topic.content
    streams = sorted(poller.state.streams, key=lambda name: poller.state.streams[name])
    return render(
        request,
        "ward",
        since=f"{poller.epoch}-{view.topic.version}",
        live=f"page=ward{view.query.replace('?', '&')}",
        query=view.query,
        page=content.get("page"),
        ward=content.get("ward"),
        signs=view.shown,
        model=view.model,
        beds=_entries(content, "ward"),
        gone=_entries(content, "gone"),
        streams=streams[::-1],
        current=poller.state.current,
        chosen=stream or poller.state.current,
    )


def _entries(content: dict[str, dict[str, object]], name: str) -> dict[str, Fields]:
    return {key: fields for key, fields in content.items() if key.startswith(f"{name}:")}


async def pipeline(request: web.Request) -> web.Response:
    """Shows the services and the flow of messages."""
    poller = await ready(request)
    content = poller.pipeline.content
    return render(
        request,
        "pipeline",
        since=f"{poller.epoch}-{poller.pipeline.version}",
        live="page=pipeline",
        page=content.get("page"),
        figures=content.get("figures"),
        services=_entries(content, "service"),
        reasons=_entries(content, "reason"),
        gateway=content.get("gateway"),
        senders=_entries(content, "sender"),
        codes=_entries(content, "code"),
    )


async def pipeline_figures(request: web.Request) -> web.Response:
    """Returns the content of the pipeline page as JSON."""
    poller = await ready(request)
    return web.json_response(poller.pipeline.content, headers={"Cache-Control": "no-store"})


async def patient(request: web.Request) -> web.Response:
    """Shows one stay of a patient: the newest stay, or the stay that began on ?stay=YYYY-MM-DD."""
    poller = await ready(request)
    stream = stream_of(request, poller)
    pat_id = number(request.match_info["pat_id"])
    # One stream for the whole page, because the current stream may change during the queries.
    name = stream or poller.state.current
    stays = await _stays(poller, name, pat_id)
    wanted = request.query.get("stay")
    stay = next((s for s in stays if wanted in (None, s.key.admitted.isoformat())), None)
    if stay is None:
        raise web.HTTPNotFound(text=f"Patient {pat_id} has no such stay in this stream.")
    view = await view_of(poller, ViewKey(name, stay.key))
    content = view.topic.content
    return render(
        request,
        "patient",
        # No version, so that the first event includes the curves.
        live=f"page=patient&pat_id={stay.key.pat_id}&stay={stay.key.admitted.isoformat()}"
        f"&stream={name}",
        query=f"?stream={stream}" if stream else "",
        page=content.get("page"),
        patient=content.get("patient"),
        model=poller.model,
        stream=name,
        stay=stay,
        stays=stays,
        vital=_entries(content, "vital"),
        feature=_entries(content, "feature"),
        rejected=_entries(content, "rejected"),
        # Only in the current stream, because an acknowledgement becomes a message of that stream.
        acknowledging=ACKNOWLEDGER in request.app and name == poller.state.current,
    )


async def _stays(poller: Poller, stream: str | None, pat_id: int) -> list[Stay]:
    return await poller.query(lambda database: database.stays_of(stream or "", pat_id))


async def live(request: web.Request) -> web.StreamResponse:
    """Sends a page's updates.

    GET /events?page=ward|pipeline|patient[&stream=…][&pat_id=…&stay=…][&since=id]
    """
    poller = await ready(request)
    page = request.query.get("page")
    if page == "pipeline":
        return await events.stream(request, poller, poller.pipeline)
    stream = stream_of(request, poller)
    if page == "ward":
        key = ViewKey(stream, None)
    elif page == "patient":
        key = ViewKey(stream or poller.state.current, _stay_key(request))
        if key not in poller.shelf.views:
            assert key.stay is not None
            stays = await _stays(poller, key.stream, key.stay.pat_id)
            if key.stay not in [stay.key for stay in stays]:
                raise web.HTTPNotFound(text="This stream has no such stay.")
    else:
        raise web.HTTPNotFound(text="/events requires page=ward, page=pipeline or page=patient.")
    view = await view_of(poller, key)
    view.readers += 1
    try:
        return await events.stream(request, poller, view.topic)
    finally:
        view.readers -= 1
        view.touch()


def _stay_key(request: web.Request) -> StayKey:
    pat_id = number(request.query.get("pat_id", ""))
    try:
        return StayKey(pat_id, date.fromisoformat(request.query.get("stay", "")))
    except ValueError:
        raise web.HTTPNotFound(text="page=patient requires pat_id and stay=YYYY-MM-DD.") from None


def patient_number(text: str) -> int | None:
    """Parses a patient's number as the pages write it. Returns None for any other text, and for a
    number of more than 64 bits, which the database cannot store.

    >>> patient_number("17"), patient_number("-1"), patient_number("0017")
    (17, -1, None)
    """
    if re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return None


def number(text: str) -> int:
    """Parses a patient's number. Raises HTTPNotFound for any other text."""
    found = patient_number(text)
    if found is None:
        raise web.HTTPNotFound(text=f"“{text[:40]}” is not a patient number.")
    return found
