"""Checks that the session of an open event stream is still valid. nginx checks it only when the
stream is opened."""

import aiohttp
from aiohttp import web

# Headers of the browser's request that the login service needs to find the session.
FORWARDED = ("Cookie", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto")


class SessionEnded(Exception):
    """The user logged out, or the session expired."""


class LoginDown(Exception):
    """The login service does not answer, or its status is neither 204 nor 401."""


class Login:
    """A client of the login service at `url`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url}/check/person"

    async def check(self, request: web.Request) -> None:
        """Checks the session. Raises SessionEnded or LoginDown."""
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        try:
            async with self._session.get(self._url, headers=headers) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise LoginDown from error
        if status == 401:
            raise SessionEnded
        if status != 204:
            raise LoginDown
