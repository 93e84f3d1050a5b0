"""Sends the updates of a page as server-sent events; a browser can resume after a lost connection.
An event's id is `<epoch>-<version>`; the epoch is one run of the dashboard. A browser that sends an
id of this run gets the changes since that event; any other browser gets everything.
"""

import asyncio
import zlib
from contextlib import suppress

from aiohttp import web

from dashboard.keys import LOGIN
from dashboard.poller import Poller
from dashboard.sessions import LoginDown, SessionEnded
from dashboard.topic import Topic

# Seconds between heartbeats.
BEAT_SECONDS = 4.0
# Seconds between checks of the session.
CHECK_SECONDS = 10.0
RETRY = b"retry: 2000\n\n"


def version_of(event_id: str, epoch: str) -> int:
    """The version in an id of this run; 0 for any other id.

    >>> version_of("3f9a1c2b-118", "3f9a1c2b"), version_of("0-118", "3f9a1c2b")
    (118, 0)
    """
    run, _, version = event_id.partition("-")
    return int(version) if run == epoch and version.isdecimal() and len(version) < 16 else 0


def _beat(poller: Poller, topic: Topic) -> bytes:
    """A heartbeat with two times of the poller's clock: now, and when the topic's content was
    read."""
    return b'event: beat\ndata: {"now":%.2f,"read":%.2f}\n\n' % (poller.clock(), topic.read_at)


async def stream(request: web.Request, poller: Poller, topic: Topic) -> web.StreamResponse:
    """Sends the changes of a topic until the browser disconnects or its session ends."""
    epoch = poller.epoch
    known = request.headers.get("Last-Event-ID") or request.query.get("since", "")
    version = min(version_of(known, epoch), topic.version)
    response = web.StreamResponse()
    response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    pack = None
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        # The compressor is flushed after each event. Its window is small, because similar text is
        # close together.
        response.headers["Content-Encoding"] = "gzip"
        pack = zlib.compressobj(6, wbits=16 + 13, memLevel=6)
    await response.prepare(request)

    async def send(event: bytes) -> None:
        if pack is not None:
            event = pack.compress(event) + pack.flush(zlib.Z_SYNC_FLUSH)
        await response.write(event)

    clock = asyncio.get_running_loop().time
    checked = clock()
    # nginx sends the user's name if users must log in.
    login = request.app.get(LOGIN) if request.headers.get("X-User") else None
    # A disconnect is not an error. If the login service does not answer, nginx rejects the
    # browser's next request.
    with suppress(ConnectionResetError, LoginDown):
        event = RETRY
        while True:
            if login is not None and clock() - checked > CHECK_SECONDS:
                try:
                    await login.check(request)
                except SessionEnded:
                    await send(b"event: ended\ndata: {}\n\n")
                    break
                checked = clock()
            # While `send` waits for a slow browser, changes gather into one event.
            if topic.version > version:
                answer = topic.answer(version)
                version = topic.version
                event += b"id: %s-%d\ndata: %s\n\n" % (epoch.encode(), version, answer)
            # The heartbeat is made before `send`, because the time that `send` waits is part of the
            # data's age.
            await send(event + _beat(poller, topic))
            event = b""
            await topic.changed(version, BEAT_SECONDS)
    return response
