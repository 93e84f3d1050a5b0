"""Rejects requests that another site makes a browser send. `wire.hosts.only` does the same in the
other services."""

from collections.abc import Collection
from functools import lru_cache, partial

from flask import Flask, request

from modelapi.api_errors import Forbidden, Misdirected
from wire.hosts import SAFE, from_other_site, is_ours, misdirected


def from_browser() -> bool:
    """Whether the request has headers that only browsers send."""
    # `headers` is not used, because for an absent header it raises and catches an error.
    environ = request.environ
    return "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ


def public_host() -> str:
    """The host and port that the client requested, also behind a proxy."""
    return request.headers.get("X-Forwarded-Host") or request.host


def register(app: Flask, names: Collection[str]) -> None:
    """Answers 421 if Host is neither an IP address nor in `names`, and 403 to requests from other
    sites, unless they only read.
    """

    known = lru_cache(maxsize=64)(partial(is_ours, names=frozenset(names)))

    @app.before_request
    def check() -> None:
        environ = request.environ
        host = environ.get("HTTP_HOST", "")
        if not known(host):
            raise Misdirected(misdirected(host))
        unsafe = environ["REQUEST_METHOD"].upper() not in SAFE and from_browser()
        if unsafe and from_other_site(dict(request.headers), public_host()):
            raise Forbidden("A page of another site may not send this request.")
