"""Refuses requests that another site makes a browser send.

Browsers name the page's site in Origin with each POST, and current ones in Sec-Fetch-Site. A site
whose name resolves to this machine (DNS rebinding) still has its own name in Host.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from flask import Flask, request

from modelapi.api_errors import Forbidden, Misdirected
from wire.hosts import is_ours, misdirected

_SAFE = {"GET", "HEAD", "OPTIONS"}


def from_browser() -> bool:
    """Whether the request has a browser's headers."""
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def public_host() -> str:
    """The host and port that the client asked for, also behind a proxy."""
    return request.headers.get("X-Forwarded-Host") or request.host


def register(app: Flask, names: Collection[str]) -> None:
    """Answers 421 for another Host than `names`, and 403 to another site's requests but GET."""

    @app.before_request
    def check() -> None:
        host = request.headers.get("Host", "")
        if not is_ours(host, names):
            raise Misdirected(misdirected(host))
        if request.method in _SAFE:
            return
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        if site not in ("same-origin", "none") or (origin is not None and not _is_own(origin)):
            raise Forbidden("A page of another site may not send this request.")


def _is_own(origin: str) -> bool:
    try:
        # Without ports: a proxy in between may have another one.
        return urlsplit(origin).hostname == urlsplit(f"//{public_host()}").hostname
    except ValueError:
        return False
