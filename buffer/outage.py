"""Pauses between retries while a peer fails: the stream or Redis."""

import asyncio
import logging
import time

from buffer import metrics

log = logging.getLogger("buffer")

SHORTEST, LONGEST = 0.25, 5.0  # seconds between two attempts
# Seconds without a failure after which the pause is short again.
STEADY = 10.0


class Outage:
    """Logs the first failure and the recovery of a peer, and doubles the pause between attempts.

    The pause stays long if the peer fails again soon after a recovery.
    """

    def __init__(self, peer: str, url: str = "") -> None:
        self._name = f"{peer} {url}".strip()
        self._recoveries = metrics.RECONNECTS.labels(peer)
        self._since: float | None = None
        self._recovered = 0.0
        self._pause = SHORTEST

    async def wait(self, error: BaseException) -> None:
        """Logs the first failure, and sleeps until the next attempt."""
        if self._since is None:
            self._since = time.monotonic()
            if self._since - self._recovered > STEADY:
                self._pause = SHORTEST
            reason = str(error) or type(error).__name__
            log.warning("%s: %s; retrying until it recovers", self._name, reason)
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, LONGEST)

    def over(self) -> None:
        """Ends the outage, because the peer has answered."""
        if self._since is not None:
            self._recoveries.inc()
            log.info("%s: recovered after %.1f s", self._name, time.monotonic() - self._since)
            self._since, self._recovered = None, time.monotonic()
