"""GET /sub: serves the events of the log as server-sent events, as hospital serves its replay."""

import asyncio
from contextlib import suppress

from aiohttp import web

from gateway import metrics
from gateway.log import Log, LogReader
from wire import sse

AT_ONCE = 1_000  # events that are read at a time


class Stream:
    """Sends committed events to any number of subscribers."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reader = LogReader(log.path)
        self._news = asyncio.Event()
        self._subscribers: set[asyncio.Task[object]] = set()

    def wake(self) -> None:
        """Wakes the subscribers after a commit."""
        self._news.set()
        self._news = asyncio.Event()

    async def subscribe(self, request: web.Request) -> web.StreamResponse:
        """Sends all events after `Last-Event-ID`, or from the oldest one on. The response never
        ends."""
        after = self._after(request)
        response = sse.response(self._log.stream)
        task = asyncio.current_task()
        assert task is not None
        with suppress(ConnectionError):  # the client disconnected
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            self._subscribers.add(task)
            with metrics.SUBSCRIBERS.track_inprogress():
                try:
                    await self._send(response, after)
                finally:
                    self._subscribers.discard(task)
        return response

    def _after(self, request: web.Request) -> int:
        """The number of the last event that the client has received. If it has received none,
        the number of the last event that is no longer kept. Raises HTTPBadRequest or HTTPGone."""
        stream = self._log.stream
        number = sse.last_known(request, stream, self._log.committed)
        if number is None:
            return self._log.pruned
        if number < self._log.pruned:
            raise web.HTTPGone(
                text=f"messages {number + 1} to {self._log.pruned} of stream {stream} are no "
                f"longer kept (KEEP_DAYS); the oldest one is {self._log.pruned + 1}",
                headers={"X-Stream": stream, "X-Oldest": str(self._log.pruned + 1)},
            )
        return number

    async def _send(self, response: web.StreamResponse, after: int) -> None:
        stream = self._log.stream
        while True:
            news = self._news
            events = self._reader.events(after, AT_ONCE) if after < self._log.committed else []
            if events:
                text = b"".join(
                    b"id: %s-%d\ndata: %s\n\n" % (stream.encode(), seq, data)
                    for seq, data in events
                )
                await response.write(text)
                after = events[-1][0]
                await asyncio.sleep(0)  # while the client reads fast, `write` does not yield
                continue
            try:
                await asyncio.wait_for(news.wait(), sse.KEEP_ALIVE)
            except TimeoutError:
                await response.write(sse.COMMENT)

    async def end(self, app: web.Application) -> None:
        """Disconnects all subscribers."""
        for task in tuple(self._subscribers):
            task.cancel()

    def close(self) -> None:
        self._reader.close()
