"""`python -m embedded.front`: serves both web programs on one port, as nginx does in compose.

Forwards the paths of the model API to the model API, and all other paths to the dashboard.
"""

import asyncio
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from dashboard.settings import Settings
from wire import hosts
from wire.settings import read

MODELAPI = ("/api/", "/v2", "/docs", "/openapi.json", "/health")
# The page while the dashboard does not answer.
DOWN = (Path(__file__).parent.parent / "nginx" / "down.html").read_text(encoding="utf-8")

# These headers belong to one connection, not to the message (RFC 9110, section 7.6.1).
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}
# Headers that the front sets itself; the client's values are not forwarded.
OWN = {"x-forwarded-for", "x-forwarded-host", "x-user", "content-length"}

SESSION = web.AppKey("session", aiohttp.ClientSession)


async def forward(request: web.Request) -> web.StreamResponse:
    """Forwards the request, and streams the answer back."""
    if not request.raw_path.startswith("/"):
        # The target is `*`, or the address of another server, as in a request to a proxy.
        raise web.HTTPBadRequest(text="The address must be a path.\n")
    for_model = request.path.startswith(MODELAPI)
    port = os.environ["MODELAPI_PORT" if for_model else "DASHBOARD_PORT"]
    headers = _without(request.headers, HOP | OWN)
    headers["X-Forwarded-For"] = request.remote or "unknown"
    headers["X-Forwarded-Host"] = request.host
    response: web.StreamResponse | None = None
    try:
        async with request.app[SESSION].request(
            request.method,
            URL(f"http://127.0.0.1:{port}{request.raw_path}", encoded=True),
            headers=headers,
            data=await request.read() or None,
            skip_auto_headers=("Accept-Encoding", "User-Agent", "Content-Type"),
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, headers=_without(answer.headers, HOP)
            )
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
    except aiohttp.ClientError:
        if response is None:
            if not for_model:
                return web.Response(text=DOWN, status=502, content_type="text/html")
            return web.json_response({"error": "the model API does not answer"}, status=502)
        # The connection is closed, because a partial answer must not look complete.
        if request.transport is not None:
            request.transport.abort()
    return response


def _without(headers: Mapping[str, str], names: Collection[str]) -> CIMultiDict[str]:
    """All headers, including repeated ones, except `names`."""
    return CIMultiDict((key, value) for key, value in headers.items() if key.lower() not in names)


async def session(app: web.Application):  # type: ignore[no-untyped-def]
    async with aiohttp.ClientSession(
        # No limit, because each open page holds a connection.
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
    ) as app[SESSION]:
        yield


def create_app() -> web.Application:
    names = {"localhost", *read(Settings).allowed_hosts}
    app = web.Application(client_max_size=32 << 20, middlewares=[hosts.only(names)])
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    port = int(os.environ["FRONT_PORT"])
    try:
        web.run_app(
            create_app(),
            host="127.0.0.1",
            port=port,
            print=lambda _: None,
            access_log=None,
            shutdown_timeout=1,
            loop=asyncio.new_event_loop(),
            handler_cancellation=True,
            # Forwards a compressed body unchanged.
            auto_decompress=False,
        )
    except OSError as error:
        sys.exit(f"front: FRONT_PORT={port}: {error.strerror}")
