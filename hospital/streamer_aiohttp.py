"""Serves the stream over HTTP as server-sent events, to any number of subscribers."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from hospital.metrics import MESSAGES, SUBSCRIPTIONS, exposition
from hospital.replay import Replay, Source
from hospital.settings import Settings
from wire import hosts, sse
from wire.sse import errors_as_json

log = logging.getLogger(__name__)

TICK = 0.005  # seconds; messages that are due within the same tick are sent together


class Ward:
    """The state of the application: the replay (None until it is prepared), and the subscribers."""

    def __init__(self, rate: float, mode: str) -> None:
        self.rate = rate
        self.mode = mode
        self.replay: Replay | None = None
        self.subscribers: set[asyncio.Task[object]] = set()

    @contextmanager
    def follow(self, request: web.Request, subscription: "Subscription") -> Iterator[None]:
        """Counts and logs a subscriber while it is connected."""
        task = asyncio.current_task()
        assert task is not None
        host, port = (request.get_extra_info("peername") or ("?", "?"))[:2]
        stream, end = subscription.replay.stream, subscription.replay.end
        pace = f"{self.rate:g} messages/s" if self.rate else "full speed"
        log.info(
            "subscriber %s:%s connected: %s from message %d of %d, %s, %s",
            *(host, port, stream, subscription.after + 1, end, pace, self.mode),
            extra={"message_id": f"{stream}-{subscription.after + 1}"},
        )
        self.subscribers.add(task)
        SUBSCRIPTIONS.inc()
        try:
            yield
        finally:
            self.subscribers.discard(task)
            outcome = "has the whole stream" if subscription.ended else "disconnected"
            log.info("subscriber %s:%s %s (messages: %d)", host, port, outcome, subscription.sent)


WARD = web.AppKey("ward", Ward)


def create_app(settings: Settings, replay: Replay | None = None) -> web.Application:
    """The application with GET /sub, /health and /metrics.

    /sub and /health answer 503 until `app[WARD].replay` is set.
    """
    names = {"localhost", "hospital", *settings.allowed_hosts}
    app = web.Application(middlewares=[errors_as_json, hosts.only(names)])
    app[WARD] = Ward(settings.replay_rate, settings.replay_mode)
    app[WARD].replay = replay
    app.router.add_get("/sub", subscribe)
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", partial(metrics, settings.derived_data))
    app.on_shutdown.append(end_streams)
    return app


async def metrics(derived_data: Path, request: web.Request) -> web.Response:
    ward = request.app[WARD]
    body = exposition(ward.replay, len(ward.subscribers), derived_data)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def health(request: web.Request) -> web.Response:
    ward = request.app[WARD]
    if ward.replay is None:
        return web.json_response({"status": "preparing"}, status=503)
    return web.json_response(
        {
            "status": "ok",
            "stream": ward.replay.stream,
            "synthetic": ward.replay.synthetic,
            "messages": ward.replay.end,
            "rejected_rows": ward.replay.rejected.total(),
            "mode": ward.mode,
            "rate": ward.rate,
            "subscribers": len(ward.subscribers),
        }
    )


async def subscribe(request: web.Request) -> web.StreamResponse:
    """Sends the messages after `Last-Event-ID`, or all messages without it, then the end event."""
    ward = request.app[WARD]
    replay = ward.replay
    if replay is None:
        raise web.HTTPServiceUnavailable(
            text="the stream is being prepared", headers={"Retry-After": "1"}
        )
    after = sse.last_known(request, replay.stream, replay.end) or 0
    response = sse.response(replay.stream)
    with suppress(ConnectionError):  # the client disconnected, which is not an error
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        subscription = Subscription(response, replay, after, ward.rate)
        with ward.follow(request, subscription):
            await subscription.send()
    return response


class Subscription:
    """One client's progress in the replay. sent: the number of messages sent to the client."""

    def __init__(
        self, response: web.StreamResponse, replay: Source, after: int, rate: float
    ) -> None:
        self.replay = replay
        self.after = after
        self.sent = 0
        self.ended = False
        self._response = response
        self._rate = rate
        self._clock = asyncio.get_running_loop().time
        self._start = self._clock()

    async def send(self) -> None:
        """Sends each message when it is due, then the end event.

        A write waits while the client does not read, so no backlog builds up here. When the client
        reads again, overdue messages are sent at once.
        """
        for events in self.replay.events(self.after):
            first = 0
            while first < len(events):
                last = first + await self._due() if self._rate else len(events)
                due = events[first:last]
                await self._response.write("".join(due).encode())
                MESSAGES.inc(len(due))
                if log.isEnabledFor(logging.DEBUG):
                    self._trace(len(due))
                self.sent += len(due)
                first = last
                await asyncio.sleep(0)  # while the client reads fast, `write` does not yield
        end = f"event: end\nid: {self.replay.stream}-{self.replay.end}\ndata: {{}}\n\n"
        await self._response.write(end.encode())
        await self._response.write_eof()
        self.ended = True

    def _trace(self, count: int) -> None:
        for seq in range(self.after + self.sent + 1, self.after + self.sent + count + 1):
            name = f"{self.replay.stream}-{seq}"
            log.debug("message %s sent", name, extra={"message_id": name})

    async def _due(self) -> int:
        """Waits until a message is due; returns the number of messages that are due, at least 1.

        The times count from the start, so that a late wake-up does not change the rate.
        """
        due_at = self._start + self.sent / self._rate
        while (wait := due_at - self._clock()) > 0:
            await asyncio.sleep(min(max(wait, TICK), sse.KEEP_ALIVE))
            if wait > sse.KEEP_ALIVE:
                await self._response.write(sse.COMMENT)
        return max(1, int((self._clock() - self._start) * self._rate) + 1 - self.sent)


async def end_streams(app: web.Application) -> None:
    """Disconnects all subscribers, because a replay may run for days."""
    for task in tuple(app[WARD].subscribers):
        task.cancel()
