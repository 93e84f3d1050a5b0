"""An MLLP connection: reads frames, and sends their answers in the same order."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from gateway.mllp import Frame, FrameReader, wrap

log = logging.getLogger("gateway")

# Maximum number of unanswered frames; a connection that has reached it is not read.
UNANSWERED = 64


class Answer(NamedTuple):
    """The answer to one frame. content: called when all futures are done; returns the bytes to
    send, which are empty if there is nothing to send."""

    futures: Sequence["asyncio.Future[Any]"]
    content: Callable[[], bytes]


class Limits(NamedTuple):
    """The limits of a connection. size: bytes of a message. silence: seconds without a byte in
    either direction."""

    size: int
    silence: float


class Connection(asyncio.Protocol):
    """One connection. take: called with each frame. opened, closed: called at the start and at the
    end of the connection.

    Reads from `admit` until `hold`. Pauses while UNANSWERED frames wait for their answers, and
    while the sender does not read the answers. Closes after `limits.silence` seconds without a
    byte, unless `hold` was called or an answer is due, and in any case if the sender does not read
    the answers.
    """

    def __init__(
        self,
        limits: Limits,
        take: Callable[[Frame], Answer],
        opened: Callable[["Connection"], None],
        closed: Callable[["Connection"], None],
    ) -> None:
        self._limits = limits
        self._take = take
        self._opened = opened
        self._closed = closed
        self._frames = FrameReader(limits.size)
        self._answers: deque[Answer] = deque()
        self._held = True
        self._stuck = False  # whether the sender has stopped reading its answers
        self._reading = True
        self._ending = False
        self._loop = asyncio.get_running_loop()
        self._moved = self._loop.time()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def hold(self) -> None:
        """Stops reading."""
        self._held = True
        self._steer()

    def admit(self) -> None:
        """Starts or resumes reading."""
        if not self._held:
            return
        self._held = False
        self._moved = self._loop.time()
        self._steer()

    def end(self) -> None:
        """Closes the connection once all complete frames are answered."""
        self._ending = True
        self._steer()
        self._answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(self._limits.silence, self._check_silence)
        self._steer()
        self._opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self._answers.clear()
        self._done()
        self._closed(self)

    def data_received(self, data: bytes) -> None:
        self._moved = self._loop.time()
        for frame in self._frames.feed(data):
            self._add(self._take(frame))
        self._steer()

    def eof_received(self) -> bool:
        """Called when the sender has closed its side; it may still read answers."""
        if self._frames.partial:
            log.warning("a connection ended within a frame; the sender must send the message again")
        self.end()
        # True keeps the transport open for the answers; an SSL transport closes in any case.
        return self._transport.get_extra_info("ssl_object") is None

    def pause_writing(self) -> None:
        self._stuck = True
        self._steer()

    def resume_writing(self) -> None:
        self._stuck = False
        self._moved = self._loop.time()
        self._steer()

    def _add(self, answer: Answer) -> None:
        self._answers.append(answer)
        for future in answer.futures:
            future.add_done_callback(self._answer)
        if not answer.futures:
            self._answer()

    def _answer(self, done: "asyncio.Future[Any] | None" = None) -> None:
        """Sends the answers that are ready, up to the first that is not."""
        if done is not None:
            done.exception()  # otherwise asyncio logs the exception as never retrieved
        ready = []
        while self._answers and all(future.done() for future in self._answers[0].futures):
            content = self._answers.popleft().content()
            if content:
                ready.append(wrap(content))
        if ready:
            self._transport.write(b"".join(ready))
            self._steer()
        if self._ending and not self._answers:
            self._transport.close()
            self._done()

    def _steer(self) -> None:
        """Pauses or resumes reading, as the state requires."""
        full = len(self._answers) >= UNANSWERED
        reading = not (self._held or self._stuck or self._ending or full)
        if reading == self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _check_silence(self) -> None:
        left = self._moved + self._limits.silence - self._loop.time()
        if left <= 0 and self._stuck:
            log.warning("a sender does not read its answers; closing its connection")
            self._transport.abort()
            return
        if left <= 0 and self._reading and not self._answers:
            if self._frames.partial:
                self._add(self._take(Frame(b"", incomplete=True)))
            self.end()
            return
        self._timer = self._loop.call_later(max(left, 1.0), self._check_silence)

    def _done(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
