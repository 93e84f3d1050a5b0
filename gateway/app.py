"""The gateway's HTTP application. A receiver accepts messages of one format: HL7, FHIR or JSON."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from gateway import metrics
from gateway.codes import Codes
from gateway.fhir_receiver import FhirReceiver
from gateway.hl7_receiver import HL7Receiver
from gateway.inbox import Inbox
from gateway.json_receiver import JsonReceiver
from gateway.log import Log
from gateway.reading import Reader
from gateway.settings import Settings
from gateway.stream import Stream
from gateway.times import earliest, latest
from gateway.tokens import required
from gateway.ward import Ward
from wire import hosts
from wire.sse import errors_as_json

log = logging.getLogger("gateway")

MLLP_PORT = web.AppKey("mllp_port", int)


def create_app(settings: Settings) -> web.Application:
    """The application with all receivers, which start with it.

    Raises OSError, sqlite3.Error, CodesError or TokenKeyError.
    """
    names = {"localhost", "gateway", *settings.allowed_hosts}
    store = Log(settings.log)
    zone = settings.time_zone.info
    limit = partial(latest, zone, settings.future_hours)
    oldest = partial(earliest, zone, settings.future_hours)
    ward = Ward(store, settings.icu_units, settings.keep_identifiers == "1", limit, oldest)
    inbox = Inbox(store, ward, settings.keep_days)
    stream = Stream(store)
    inbox.committed.append(stream.wake)
    codes = Codes(Path(settings.codes) if settings.codes else None)
    reader = Reader(codes, zone, settings.authority, metrics.unknown_code)
    fhir = FhirReceiver(inbox, codes, zone)
    app = web.Application(
        middlewares=[errors_as_json, hosts.only(names), required(settings.token_key_file)],
        client_max_size=8 * settings.message_max,
    )
    app.router.add_get("/sub", stream.subscribe)
    app.router.add_get("/health", partial(health, store))
    app.router.add_get("/metrics", partial(exposition, store))
    app.router.add_post("/messages", JsonReceiver(inbox, store, limit).post)
    fhir.add_routes(app)
    app.on_shutdown.append(stream.end)
    hl7 = HL7Receiver(settings, inbox, reader)
    app.cleanup_ctx.append(partial(receiving, store, inbox, stream, hl7))
    return app


async def receiving(
    store: Log, inbox: Inbox, stream: Stream, hl7: HL7Receiver, app: web.Application
) -> AsyncIterator[None]:
    """Runs the inbox and opens the MLLP port. At the end, stores and acknowledges all messages that
    were received completely."""
    writing = asyncio.create_task(inbox.run())
    app[MLLP_PORT] = await hl7.open()
    log.info("listening for HL7 on port %d; stream %s", app[MLLP_PORT], store.stream)
    yield
    await hl7.close()
    inbox.stop()
    await writing
    stream.close()
    store.close()


async def health(store: Log, request: web.Request) -> web.Response:
    return web.json_response(
        {
            "status": "ok",
            "stream": store.stream,
            "messages": store.committed,
            "oldest": store.pruned + 1,
            "mode": "live",
            "senders": metrics.senders(),
            "nacks": metrics.nacks(),
            "unknown_codes": metrics.unknown_codes(),
        }
    )


async def exposition(store: Log, request: web.Request) -> web.Response:
    body = metrics.exposition(store.path, store.committed)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
