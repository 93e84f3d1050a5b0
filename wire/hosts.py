"""Rejects requests that another site makes a browser send.

A browser lets a page read responses from the page's own host name. The owner of that name can make
it resolve to this machine (DNS rebinding), but cannot make the browser send another name in Host.
A page may also send a form or a text to any site, without reading the response. Then the browser
names the page's site in Origin, and most browsers also in Sec-Fetch-Site.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Handler, Middleware

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
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


def misdirected(host: str) -> str:
    """The text of a response with status 421."""
    return (
        f"{host!r} is not a name of this service: use localhost or an IP address, or add the name "
        "to ALLOWED_HOSTS"
    )


def from_other_site(headers: Mapping[str, str], host: str) -> bool:
    """Whether a page of another site than `host` sent the request. A program sends no such header.

    >>> from_other_site({"Origin": "http://localhost:5000"}, "localhost:5000")
    False
    >>> from_other_site({"Origin": "http://example.org"}, "localhost:5000")
    True
    >>> from_other_site({"Sec-Fetch-Site": "cross-site"}, "localhost:5000")
    True
    """
    if headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return True
    origin = headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != host
    except ValueError:
        return True


def only(names: Collection[str]) -> Middleware:
    """Middleware for aiohttp that answers 421 to requests for other names, and 403 to those that
    another site sent, unless they only read.
    """
    # Here, so that services without aiohttp can import this module.
    from aiohttp import web

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not is_ours(host, names):
            raise web.HTTPMisdirectedRequest(text=f"{misdirected(host)}\n")
        if request.method not in SAFE and from_other_site(request.headers, host):
            raise web.HTTPForbidden(text="The request was sent from a page of another site.\n")
        return await handler(request)

    return check
