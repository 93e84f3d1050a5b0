"""The live side of a page: server-sent events, resumed where a browser left off.

An event's id is `<epoch>-<version>`, as a message's is `<stream>-<seq>`: the epoch is one
run of the dashboard. Who comes back with an id of this run gets what has changed since;
with any other, everything.
"""

import zlib
from contextlib import suppress

from aiohttp import web

from dashboard.topic import Topic

# A sign of life when nothing changes. The page counts on one every few seconds.
BEAT_SECONDS = 4.0
RETRY = b"retry: 2000\n\n"
BEAT = b"event: beat\ndata: {}\n\n"


def version_of(event_id: str, epoch: str) -> int:
    """The version that an id of this run names; 0, which means none, for any other.

    >>> version_of("3f9a1c2b-118", "3f9a1c2b"), version_of("0-118", "3f9a1c2b")
    (118, 0)
    """
    run, _, version = event_id.partition("-")
    return int(version) if run == epoch and version.isdecimal() and len(version) < 16 else 0


async def stream(request: web.Request, topic: Topic, epoch: str) -> web.StreamResponse:
    """Sends what changes in the topic until the browser leaves."""
    known = request.headers.get("Last-Event-ID") or request.query.get("since", "")
    version = min(version_of(known, epoch), topic.version)
    response = web.StreamResponse()
    response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    pack = None
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        # Flushed after each event. A small window: a ward repeats itself closely.
        response.headers["Content-Encoding"] = "gzip"
        pack = zlib.compressobj(6, wbits=16 + 13, memLevel=6)
    await response.prepare(request)

    async def send(event: bytes) -> None:
        if pack is not None:
            event = pack.compress(event) + pack.flush(zlib.Z_SYNC_FLUSH)
        await response.write(event)

    # A browser that leaves is no error.
    with suppress(ConnectionResetError):
        await send(RETRY)
        while True:
            # A slow browser waits in `send`; what changes meanwhile comes as one event after it.
            if await topic.changed(version, BEAT_SECONDS):
                answer = topic.answer(version)
                version = topic.version
                await send(b"id: %s-%d\ndata: %s\n\n" % (epoch.encode(), version, answer))
            else:
                await send(BEAT)
    return response
