"""Receives HL7: MLLP over TCP, with TLS if configured."""

import asyncio
import logging
import ssl
import time
from functools import partial

from gateway import metrics
from gateway.answers import FAILURE, SUCCESS, answer, encode, rejection
from gateway.connection import Answer, Connection, Limits
from gateway.facts import Fact, Unusable
from gateway.hl7 import Message, Unreadable, at, parse, split
from gateway.inbox import Inbox, Item, Logged, digest
from gateway.log import Received
from gateway.mllp import Frame
from gateway.reading import Reader
from gateway.settings import Settings
from gateway.times import epoch

log = logging.getLogger("gateway")

Pending = list[tuple[Message, "asyncio.Future[Logged]"]]


class HL7Receiver:
    """Serves MLLP connections until `close`."""

    def __init__(self, settings: Settings, inbox: Inbox, reader: Reader) -> None:
        self._settings = settings
        self._inbox = inbox
        self._reader = reader
        self._open: list[Connection] = []  # in order of their start
        self._room: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Starts to listen; returns the port. Raises OSError."""
        settings = self._settings
        limits = Limits(settings.message_max, settings.silence_max)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(limits, self._take, self._opened, self._closed),
            settings.host,
            settings.mllp_port,
            ssl=_tls(settings),
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops reading, answers all complete frames, and closes the connections."""
        if self._server is not None:
            self._server.close()
        open_now = list(self._open)
        for connection in open_now:
            connection.end()
        await asyncio.gather(*(connection.ended for connection in open_now))

    def _opened(self, connection: Connection) -> None:
        self._open.append(connection)
        self._admit()

    def _closed(self, connection: Connection) -> None:
        self._open.remove(connection)
        self._admit()

    def _admit(self) -> None:
        """Starts to read the oldest connections, up to the limit; the others wait."""
        admitted = self._open[: self._settings.connections_max]
        metrics.CONNECTIONS.set(len(admitted))
        for connection in admitted:
            if self._room is None:
                connection.admit()

    def _hold(self) -> None:
        """Pauses reading until there is room in the inbox."""
        for connection in self._open:
            connection.hold()
        self._room = asyncio.create_task(self._inbox.room())
        self._room.add_done_callback(self._has_room)

    def _has_room(self, _: object) -> None:
        self._room = None
        self._admit()

    def _answer(self, pending: Pending) -> bytes:
        texts = []
        for message, future in pending:
            if future.exception() is None:
                texts.append(answer(message, SUCCESS, self._reader.zone))
            else:
                metrics.NACKS.labels("AE").inc()
                reason = "the message could not be stored; send it again"
                texts.append(answer(message, FAILURE, self._reader.zone, reason))
        texts = [text for text in texts if text]
        return encode(texts, pending[0][0].charset, len(pending) > 1) if texts else b""

    def _take(self, frame: Frame) -> Answer:
        if frame.too_long:
            return self._reject(
                frame, f"the message is longer than {self._settings.message_max} bytes"
            )
        if frame.incomplete:
            return self._reject(frame, "the frame is incomplete")
        try:
            parts = [
                (content, parse(content, self._settings.hl7_charset))
                for content in split(frame.content)
            ]
        except Unreadable as error:
            return self._reject(frame, str(error))
        pending = [(message, self._inbox.put(self._item(raw, message))) for raw, message in parts]
        if self._room is None and self._inbox.full:
            self._hold()
        return Answer([future for _, future in pending], partial(self._answer, pending))

    def _reject(self, frame: Frame, reason: str) -> Answer:
        log.warning("rejected a frame (AR): %s", reason)
        metrics.NACKS.labels("AR").inc()
        text, charset = rejection(frame.content, self._reader.zone, reason)
        return Answer([], partial(encode, [text], charset, batch=False))

    def _item(self, raw: bytes, message: Message) -> Item:
        received = time.time()
        sender = message.sender
        sent = epoch(message.components(at(message.msh, 7))[0], self._reader.zone)
        if sent is not None:
            metrics.clock_difference(sender, sent - received)
        return Item(
            Received(digest(raw), received, sender, f"hl7 {message.kind}"[:64], raw),
            self._facts(message),
        )

    def _facts(self, message: Message) -> list[Fact] | None:
        try:
            return self._reader.facts(message)
        except Exception as error:
            # A bug must not stop the sender. The message itself is stored.
            metrics.FAULTS.inc()
            log.error("a message could not be parsed: %s", type(error).__name__)
            return [Unusable(f"the gateway failed to parse it: {type(error).__name__}")]


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """The server's TLS context; None without MLLP_TLS_CERT. With MLLP_TLS_CA, senders must also
    have a certificate."""
    if not settings.mllp_tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.mllp_tls_cert, settings.mllp_tls_key or None)
    if settings.mllp_tls_ca:
        context.load_verify_locations(settings.mllp_tls_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
