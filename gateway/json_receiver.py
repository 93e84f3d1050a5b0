"""POST /messages: receives one message or a list of messages, in the stream's own format."""

import time
from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from gateway import metrics
from gateway.inbox import Direct, DiskFailed, Inbox, Item, Logged, digest
from gateway.log import Log, Received
from gateway.times import AHEAD, Moment, moment_of
from gateway.tokens import sender_of
from wire.bodies import read_body
from wire.messages import Message, Rejected, Withdrawal, decode

# Messages with these reason codes are accepted, because they are well-formed. The tool stores them
# in the table `rejected`.
PASSED_ON = ("implausible",)
LISTED_MAX = 10_000  # maximum number of messages in a list

Result = dict[str, Any]


class JsonReceiver:
    """Answers each message with a status: 201 new, 200 known, 422 invalid, 503 not stored.

    latest: returns the latest time that a message may have.
    """

    def __init__(self, inbox: Inbox, log: Log, latest: Callable[[], Moment]) -> None:
        self._inbox = inbox
        self._latest = latest
        self._log = log

    async def post(self, request: web.Request) -> web.Response:
        """Stores the messages of a request. The answer to one object has the object's status; the
        answer to a list has the status 207, and `results` in the order of the list.
        """
        await self._inbox.room()
        try:
            body = msgspec.json.decode(await read_body(request), type=msgspec.Raw)
            listed = bytes(body).lstrip().startswith(b"[")
            messages = msgspec.json.decode(body, type=list[msgspec.Raw]) if listed else [body]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise web.HTTPBadRequest(text=f"the body is not JSON: {error}") from None
        if len(messages) > LISTED_MAX:
            raise web.HTTPRequestEntityTooLarge(LISTED_MAX, len(messages))
        sender = sender_of(request, "json")
        key = request.headers.get("Idempotency-Key", "")
        # All messages are queued before the first is awaited, so that they share transactions.
        waiting = [
            self._put(bytes(message), sender, f"{key}/{number}" if key else "")
            for number, message in enumerate(messages)
        ]
        results = [await result for result in waiting]
        if listed:
            return web.json_response({"results": results}, status=207)
        return web.json_response(results[0], status=results[0]["status"])

    def _put(self, data: bytes, sender: str, key: str) -> Awaitable[Result]:
        try:
            message = decode(data)
        except Rejected as error:
            if error.code not in PASSED_ON:
                return self._invalid(str(error), error.code)
            message = msgspec.json.decode(data, type=Message)
        if not isinstance(message, Withdrawal) and moment_of(message) > self._latest():
            return self._invalid(AHEAD, "dates")
        # Encoded again, so that spaces and the order of fields do not change the digest.
        data = msgspec.json.encode(message)
        # Bytes of a header that are not UTF-8 are surrogates in the text.
        name = (
            digest(b"key", key.encode(errors="surrogateescape")) if key else digest(b"json", data)
        )
        received = Received(name, time.time(), sender, "json", data)
        future = self._inbox.put(Item(received, [Direct(message, data)]))
        return self._stored(future, data)

    async def _invalid(self, reason: str, code: str) -> Result:
        metrics.NACKS.labels("422").inc()
        return {"status": 422, "error": reason, "code": code}

    async def _stored(self, future: "Future[Logged]", data: bytes) -> Result:
        try:
            logged = await future
        except DiskFailed:
            metrics.NACKS.labels("503").inc()
            return {"status": 503, "error": "the message could not be stored; send it again"}
        if logged.known is not None and logged.known != data:
            metrics.NACKS.labels("422").inc()
            error = "this Idempotency-Key was already used for another message"
            return {"status": 422, "error": error, "code": "idempotency_key"}
        status = 201 if logged.known is None else 200
        return {"status": status, "id": f"{self._log.stream}-{logged.numbers.first}"}
