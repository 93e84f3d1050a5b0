"""Server-sent events, and errors as JSON, for the services that serve `/sub`: hospital and gateway.

The id of an event is `<stream>-<number>`. A client that sends an id in Last-Event-ID gets the
events after it.
"""

import json
import re

from aiohttp import web
from aiohttp.typedefs import Handler

KEEP_ALIVE = 10.0  # seconds without an event before a comment is sent
COMMENT = b": keep-alive\n\n"
EVENT_ID = re.compile(r"([0-9A-Za-z_-]{0,31}[0-9A-Za-z_])-([0-9]{1,18})")


def response(stream: str) -> web.StreamResponse:
    """The response that starts a stream of events."""
    return web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",  # otherwise nginx buffers the events
            "X-Stream": stream,
        }
    )


def last_known(request: web.Request, stream: str, end: int) -> int | None:
    """The number of the last event that the client has received; None if it has none of this
    stream.

    Raises HTTPBadRequest for an id that is malformed or beyond the end of the stream.
    """
    text = request.headers.get("Last-Event-ID", "")
    if not text:
        return None
    match = EVENT_ID.fullmatch(text)
    if match is None:
        raise web.HTTPBadRequest(
            text=f"Last-Event-ID {text[:60]!r} is not <stream>-<number>, like 3f9a1c2b-118"
        )
    if match[1] != stream:
        return None
    if int(match[2]) > end:
        raise web.HTTPBadRequest(
            text=f"Last-Event-ID {text!r} is beyond the end of the stream, {stream}-{end}"
        )
    return int(match[2])


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware that answers errors with JSON."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        error.text = json.dumps({"error": error.text})
        error.content_type = "application/json"
        raise
