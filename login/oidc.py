"""Authenticates people with an oauth2-proxy instead of the built-in users."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
from aiohttp import web

NAMES = ("X-Auth-Request-Email", "X-Auth-Request-User", "X-Auth-Request-Preferred-Username")


class ProxyError(Exception):
    """The proxy does not answer, or does not name the user: it runs without --set-xauthrequest."""


class OidcProxy:
    """Gets the user of a request from the proxy."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/oauth2/auth"

    async def connection(self, app: web.Application) -> AsyncIterator[None]:
        """Keeps the HTTP client open while the application runs."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as self._client:
            yield

    async def user(self, request: web.Request) -> str | None:
        """The name of the user; None if nobody is logged in or the proxy does not admit the user.
        Raises ProxyError."""
        kept = ("Cookie", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto")
        headers = {name: request.headers[name] for name in kept if name in request.headers}
        try:
            async with self._client.get(
                self._url, headers=headers, allow_redirects=False
            ) as answer:
                if answer.status in (401, 403):
                    return None
                names = [answer.headers[name] for name in NAMES if answer.headers.get(name)]
                if answer.status not in (200, 202, 204) or not names:
                    raise ProxyError(f"OIDC_PROXY: the answer {answer.status} names no user")
                return names[0]
        except (TimeoutError, aiohttp.ClientError) as error:
            raise ProxyError(f"OIDC_PROXY: {error}") from error


def sign_in(address: str) -> str:
    """The proxy's address where a person logs in; it then redirects to `address`."""
    return f"/oauth2/start?rd={quote(address, safe='/')}"


SIGN_OUT = "/oauth2/sign_out"
