"""Rejects requests that another site makes a browser send. `wire.hosts.only` does the same in the
other services."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from flask import Flask, request

from modelapi.api_errors import Forbidden, Misdirected
from wire.hosts import SAFE, from_other_site, is_ours, misdirected

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment


def from_browser(environ: WSGIEnvironment) -> bool:
    """Whether the request has headers that only browsers send."""
    return "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ


def public_host() -> str:
    """The host and port that the client requested, also behind a proxy."""
    return request.headers.get("X-Forwarded-Host") or request.host


def known_hosts(names: Collection[str]) -> Callable[[str], bool]:
    """Returns a function that tells whether a Host header is an IP address or in `names`."""
    return lru_cache(maxsize=64)(partial(is_ours, names=frozenset(names)))


def register(app: Flask, known: Callable[[str], bool]) -> None:
    """Answers 421 if Host is not known, and 403 to requests from other sites, unless they only
    read.
    """

    @app.before_request
    def check() -> None:
        environ = request.environ
        host = environ.get("HTTP_HOST", "")
        if not known(host):
            raise Misdirected(misdirected(host))
        unsafe = environ["REQUEST_METHOD"].upper() not in SAFE and from_browser(environ)
        if unsafe and from_other_site(dict(request.headers), public_host()):
            raise Forbidden("A page of another site may not send this request.")
