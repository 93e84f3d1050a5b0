"""Hashes and checks passwords, and locks users and addresses after too many failures."""

import asyncio
import ipaddress
import math
import re
import time

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from login.store import Store

WINDOW = 15 * 60.0  # seconds
# A user or an address is locked after this number of failures within the window.
USER_FAILURES = 5
ADDRESS_FAILURES = 20
SHORTEST, LONGEST = 12, 1_000  # characters of a password

# The parameters that OWASP's cheat sheet on password storage recommends for Argon2id.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# For an unknown user, this hash is checked, so that the response time does not reveal whether a
# user exists.
_NOBODY = _hasher.hash("nobody")


class LockedOut(Exception):
    """There were too many failures. seconds: the time until the next attempt is allowed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many failures; try again in {math.ceil(seconds / 60)} min")
        self.seconds = math.ceil(seconds)


class Passwords:
    """Checks at most two passwords at a time, because a check takes 19 MiB and one core for about
    30 ms."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._room = asyncio.Semaphore(2)

    async def check(self, user: str, password: str, address: str) -> bool:
        """Whether `password` is the user's password. Counts a failure; a success resets the user's
        count. Raises LockedOut."""
        source = network(address)
        self._check_lock(user, source)
        # The attempt is counted before the check, so that simultaneous attempts count too.
        self._store.count_attempt(user, source)
        known = self._store.password(user)
        async with self._room:
            right = await asyncio.to_thread(_matches, known or _NOBODY, password[:LONGEST])
        if known is None or not right:
            return False
        self._store.forget_failures(user)
        return True

    def _check_lock(self, user: str, address: str) -> None:
        now = time.time()
        limits = (("user", user, USER_FAILURES), ("address", address, ADDRESS_FAILURES))
        for column, value, limit in limits:
            failures = self._store.failures(column, value, now - WINDOW)
            if len(failures) >= limit:
                raise LockedOut(failures[-limit] + WINDOW - now)


def hashed(password: str) -> str:
    """Hashes a password. Raises ValueError if it is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    return _hasher.hash(password)


def user_name(text: str) -> str:
    """Converts a user's name to lower case. Raises ValueError if it is invalid.

    >>> user_name(" Ada@example.org ")
    'ada@example.org'
    """
    name = text.strip().lower()
    if not re.fullmatch(r"[a-z0-9._@+-]{1,64}", name):
        raise ValueError("a user's name has 1 to 64 letters, digits or any of . _ @ + -")
    return name


def network(address: str) -> str:
    """The network for which failures are counted. An IPv6 client can use a whole /64.

    >>> network("192.0.2.7"), network("2001:db8::7:8")
    ('192.0.2.7', '2001:db8::/64')
    """
    try:
        if ipaddress.ip_address(address).version == 6:
            return str(ipaddress.ip_network(f"{address}/64", strict=False))
    except ValueError:
        pass
    return address


def _matches(known: str, password: str) -> bool:
    try:
        return _hasher.verify(known, password)
    except (VerifyMismatchError, InvalidHashError):
        return False
