"""Rejects requests that another site makes a browser send.

A browser lets a page read responses from the page's own host name. The owner of that name can make
it resolve to this machine (DNS rebinding). The browser still sends the name in Host, so Host is
checked. A page may also send a form or a text to any site, although it cannot read the response.
The browser then states in Sec-Fetch-Site whether the two sites are the same. An old browser, or any
browser without TLS, sends only Origin, which names the page's site.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from aiohttp import web
    from aiohttp.typedefs import Handler, Middleware

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
ADDRESS = re.compile(r"[0-9.]+|\[[0-9a-f:.]+\]")


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether the value of a Host header is an IP address or one of the names, with any port.

    An empty header passes, because browsers always send the header.

    >>> is_ours("127.0.0.1:5000", []), is_ours("[::1]", []), is_ours("LocalHost", ["localhost"])
    (True, True, True)
    >>> is_ours("127.0.0.1.example.org", []), is_ours("localhost.example.org", ["localhost"])
    (False, False)
    """
    name = re.sub(r":\d*$", "", host.lower())
    return name == "" or name in names or ADDRESS.fullmatch(name) is not None


def misdirected(host: str) -> str:
    """The text of the response with status 421."""
    return (
        f"{host!r} is not a name of this service: use localhost or an IP address, or add the name "
        "to ALLOWED_HOSTS"
    )


def from_other_site(headers: Mapping[str, str], host: str) -> bool:
    """Whether the request comes from a page of another site than `host`.

    Requests from programs have neither Sec-Fetch-Site nor Origin, and pass.

    >>> from_other_site({"Origin": "http://localhost:5000"}, "localhost:5000")
    False
    >>> from_other_site({"Origin": "http://example.org"}, "localhost:5000")
    True
    >>> from_other_site({"Sec-Fetch-Site": "cross-site"}, "localhost:5000")
    True

    A page whose policy hides its address has the origin "null".

    >>> from_other_site({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, "localhost:5000")
    False
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None:
        return site not in ("same-origin", "none")
    try:
        return origin is not None and urlsplit(origin).netloc != host
    except ValueError:
        return True


def only(names: Collection[str] | None) -> Middleware:
    """aiohttp middleware that answers 421 to requests for other host names, and 403 to requests
    from other sites, except those that only read. names: None if a proxy has checked the name.
    """
    # Imported here, so that services without aiohttp can import this module.
    from aiohttp import web

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if names is not None and not is_ours(host, names):
            raise web.HTTPMisdirectedRequest(text=f"{misdirected(host)}\n")
        if request.method not in SAFE and from_other_site(request.headers, host):
            raise web.HTTPForbidden(text="The request was sent from a page of another site.\n")
        return await handler(request)

    return check


def only_wsgi(app: WSGIApplication, names: Collection[str]) -> WSGIApplication:
    """Checks host names like `only`, for a WSGI application that only reads, such as that of
    prometheus_client."""

    def check(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        if is_ours(host, names):
            return app(environ, start_response)
        start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{misdirected(host)}\n".encode()]

    return check
