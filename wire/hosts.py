"""Checks the Host header, to prevent DNS rebinding.

A browser lets a page read responses from the page's own host name. The owner of that name can make
it resolve to this machine, but cannot make the browser send another name in Host.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Handler, Middleware

ADDRESS = re.compile(r"[0-9.]+|\[[0-9a-f:.]+\]")


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header is an IP address or one of the names, with any port.

    An empty header passes, because browsers always send the header.

    >>> is_ours("127.0.0.1:5000", []), is_ours("[::1]", []), is_ours("LocalHost", ["localhost"])
    (True, True, True)
    >>> is_ours("127.0.0.1.example.org", []), is_ours("localhost.example.org", ["localhost"])
    (False, False)
    """
    name = re.sub(r":\d*$", "", host.lower())
    return name == "" or name in names or ADDRESS.fullmatch(name) is not None


def refusal(host: str) -> str:
    """The text of a response with status 421."""
    return (
        f"{host!r} is not a name of this service: use localhost or an IP address, or add the name "
        "to ALLOWED_HOSTS"
    )


def only(names: Collection[str]) -> Middleware:
    """Middleware for aiohttp that answers 421 to requests for other names."""
    # Here, so that services without aiohttp can import this module.
    from aiohttp import web

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if is_ours(host, names):
            return await handler(request)
        raise web.HTTPMisdirectedRequest(text=f"{refusal(host)}\n")

    return check
