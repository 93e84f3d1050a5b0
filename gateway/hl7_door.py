"""The door for HL7: MLLP over TCP, with TLS where it is set up."""

import asyncio
import logging
import ssl
import time

from gateway import metrics
from gateway.answers import FAILURE, SUCCESS, answer, encode, refusal
from gateway.facts import Fact, Unusable
from gateway.hl7 import Message, Unreadable, at, parse, split
from gateway.inbox import DiskFailed, Inbox, Item, Logged, digest
from gateway.log import Received
from gateway.mllp import Frame, FrameReader, wrap
from gateway.reading import Reader
from gateway.settings import Settings
from gateway.times import seconds_since

log = logging.getLogger("gateway")

CHUNK = 1 << 16
# Frames of one connection that are not answered yet. Beyond, it is not read.
UNANSWERED = 64

Pending = list[tuple[Message, "asyncio.Future[Logged]"]]
Answer = Pending | bytes  # bytes: a refusal


class HL7Door:
    """Serves MLLP connections until `close`."""

    def __init__(self, settings: Settings, inbox: Inbox, reader: Reader) -> None:
        self._settings = settings
        self._inbox = inbox
        self._reader = reader
        self._slots = asyncio.Semaphore(settings.connections_max)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Listens, and returns the port. Raises OSError."""
        self._server = await asyncio.start_server(
            self._accept,
            self._settings.host,
            self._settings.mllp_port,
            ssl=_tls(self._settings),
            limit=CHUNK,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops reading; frames that were complete get their answers first."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # A connection beyond the limit waits, unread, for one of the others to end.
            async with self._slots:
                with metrics.CONNECTIONS.track_inprogress():
                    await self._serve(reader, writer)
        except (asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers: asyncio.Queue[Answer | None] = asyncio.Queue(UNANSWERED)
        sending = asyncio.create_task(self._send(answers, writer))
        try:
            await self._receive(reader, answers, sending)
        finally:
            # Also when this task is cancelled: what was received whole is answered.
            await asyncio.shield(self._end(answers, sending))

    async def _end(
        self, answers: "asyncio.Queue[Answer | None]", sending: "asyncio.Task[None]"
    ) -> None:
        if not sending.done():
            await answers.put(None)
        await asyncio.gather(sending, return_exceptions=True)

    async def _receive(
        self,
        reader: asyncio.StreamReader,
        answers: "asyncio.Queue[Answer | None]",
        sending: "asyncio.Task[None]",
    ) -> None:
        frames = FrameReader(self._settings.message_max)
        while not sending.done():
            await self._inbox.room()
            try:
                async with asyncio.timeout(self._settings.silence_max):
                    chunk = await reader.read(CHUNK)
            except TimeoutError:
                if frames.partial:
                    await answers.put(self._refuse(Frame(b""), "the frame was not completed"))
                return
            if not chunk:
                if frames.partial:
                    log.warning("a connection ended within a frame; its sender will repeat it")
                return
            for frame in frames.feed(chunk):
                await answers.put(self._take(frame))

    async def _send(
        self, answers: "asyncio.Queue[Answer | None]", writer: asyncio.StreamWriter
    ) -> None:
        """Sends the answers in the order of their frames."""
        while (pending := await answers.get()) is not None:
            content = pending if isinstance(pending, bytes) else await self._answer(pending)
            if content:
                writer.write(wrap(content))
                await writer.drain()

    async def _answer(self, pending: Pending) -> bytes:
        texts = []
        for message, future in pending:
            try:
                await future
                texts.append(answer(message, SUCCESS, self._reader.zone))
            except DiskFailed:
                metrics.NACKS.labels("AE").inc()
                reason = "the message could not be stored; send it again"
                texts.append(answer(message, FAILURE, self._reader.zone, reason))
        texts = [text for text in texts if text]
        return encode(texts, pending[0][0].charset, len(pending) > 1) if texts else b""

    def _take(self, frame: Frame) -> Answer:
        if frame.too_long:
            return self._refuse(frame, f"longer than {self._settings.message_max} bytes")
        try:
            parts = [
                (content, parse(content, self._settings.hl7_charset))
                for content in split(frame.content)
            ]
        except Unreadable as error:
            return self._refuse(frame, str(error))
        if not parts:
            return self._refuse(frame, "a batch without a message")
        return [(message, self._inbox.put(self._item(raw, message))) for raw, message in parts]

    def _refuse(self, frame: Frame, reason: str) -> bytes:
        log.warning("refused a frame (AR): %s", reason)
        metrics.NACKS.labels("AR").inc()
        text, charset = refusal(frame.content, self._reader.zone, reason)
        return encode([text], charset, batch=False)

    def _item(self, raw: bytes, message: Message) -> Item:
        received = time.time()
        sender = message.sender
        ahead = seconds_since(at(message.msh, 7), self._reader.zone, received)
        if ahead is not None:
            metrics.clock_difference(sender, ahead)
        return Item(
            Received(digest(raw), received, sender, f"hl7 {message.kind}"[:64], raw),
            self._facts(message),
        )

    def _facts(self, message: Message) -> list[Fact] | None:
        try:
            return self._reader.facts(message)
        except Exception as error:
            # A fault of ours must not stop its sender. The message is in the log.
            metrics.FAULTS.inc()
            log.error("a message could not be read: %s", type(error).__name__)
            return [Unusable(f"cannot be read: {type(error).__name__}")]


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """Server TLS; with MLLP_TLS_CA, senders too must have a certificate."""
    if not settings.mllp_tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.mllp_tls_cert, settings.mllp_tls_key or None)
    if settings.mllp_tls_ca:
        context.load_verify_locations(settings.mllp_tls_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
