"""Sessions: signed cookies with the name of the user."""

import hashlib
import secrets
import time

from aiohttp import web
from itsdangerous import BadData, URLSafeTimedSerializer

from login.store import Store


class Sessions:
    """Signs and checks the cookies. A session ends when it expires, when the user logs out or is
    removed, or when the password changes.
    """

    def __init__(self, store: Store, hours: float) -> None:
        self._store = store
        self._seconds = int(hours * 3600)
        self._signer = URLSafeTimedSerializer(store.session_key, salt="session")

    def begin(self, request: web.Request, response: web.Response, user: str) -> None:
        """Starts a session: sets the cookie of a user who has just logged in."""
        session = [user, self._stamp(user), secrets.token_urlsafe(16)]
        response.set_cookie(
            _cookie(request),
            self._signer.dumps(session),
            max_age=self._seconds,
            secure=_is_secure(request),
            httponly=True,
            samesite="Lax",
        )

    def user(self, request: web.Request) -> str | None:
        """The user of a request; None if it has no valid session."""
        found = self._read(request)
        if found is None:
            return None
        user, stamp, session = found
        valid = stamp == self._stamp(user) and not self._store.has_ended(session)
        return user if valid else None

    def end(self, request: web.Request, response: web.Response) -> None:
        """Ends the session of a request, in the file and in the browser."""
        if found := self._read(request):
            self._store.end_session(found[2], time.time() + self._seconds)
        response.del_cookie(
            _cookie(request), secure=_is_secure(request), httponly=True, samesite="Lax"
        )

    def _read(self, request: web.Request) -> tuple[str, str, str] | None:
        try:
            user, stamp, session = self._signer.loads(
                request.cookies.get(_cookie(request), ""), max_age=self._seconds
            )
        except (BadData, ValueError, TypeError):
            return None
        return user, stamp, session

    def _stamp(self, user: str) -> str | None:
        """A fingerprint of the user's password hash; None if there is no such user."""
        password = self._store.password(user)
        return password and hashlib.sha256(password.encode()).hexdigest()[:16]


def _is_secure(request: web.Request) -> bool:
    return request.headers.get("X-Forwarded-Proto") == "https"


def _cookie(request: web.Request) -> str:
    # The prefix prevents pages without TLS, and pages on other hosts of the domain, from setting
    # the cookie.
    return "__Host-icu-session" if _is_secure(request) else "icu-session"
