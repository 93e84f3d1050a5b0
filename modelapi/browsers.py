"""Rejects requests that a browser sends on behalf of another site's page.

Browsers send the page's site in Origin with a POST, and current browsers also send Sec-Fetch-Site.
"""

from urllib.parse import urlsplit

from flask import Flask, request

from modelapi.api_errors import Forbidden

_SAFE = {"GET", "HEAD", "OPTIONS"}


def from_browser() -> bool:
    """Whether the request has headers that only browsers send."""
    return "Origin" in request.headers or "Sec-Fetch-Site" in request.headers


def register(app: Flask) -> None:
    """Answers 403 to requests of other sites, except those that only read."""

    @app.before_request
    def same_site() -> None:
        if request.method in _SAFE:
            return
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        if site not in ("same-origin", "none") or (origin is not None and not _is_own(origin)):
            raise Forbidden("A page of another site must not send this request.")


def _is_own(origin: str) -> bool:
    try:
        # Without ports, because a proxy in between may use another one.
        return urlsplit(origin).hostname == urlsplit(f"//{request.host}").hostname
    except ValueError:
        return False
