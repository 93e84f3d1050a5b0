"""Refuses requests that a page of another site makes a browser send.

Every browser names the page's site in Origin with a POST, and current ones in Sec-Fetch-Site.
"""

from urllib.parse import urlsplit

from flask import Flask, request

from modelapi.api_errors import Forbidden

_SAFE = {"GET", "HEAD", "OPTIONS"}


def from_browser() -> bool:
    """Whether the request shows the marks of a browser."""
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def register(app: Flask) -> None:
    """Answer 403 to requests of other sites, but for those that only read."""

    @app.before_request
    def same_site() -> None:
        if request.method in _SAFE:
            return
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        if site not in ("same-origin", "none") or (origin is not None and not _is_own(origin)):
            raise Forbidden("A page of another site may not send this request.")


def _is_own(origin: str) -> bool:
    try:
        # Without ports: a proxy in between may have another one.
        return urlsplit(origin).hostname == urlsplit(f"//{request.host}").hostname
    except ValueError:
        return False
