"""Detects poison messages, which crash the worker, for example because they exhaust memory.

Redis counts the attempts to process each batch and, if needed, each message. A batch that has
crashed the worker `CRASHES` times is stored message by message, and a message that then crashes the
worker `CRASHES` times becomes a dead letter.
"""

from redis import Redis

from wire.keys import ATTEMPTS
from wire.scripts import Command

CRASHES = 3
EXPIRES = 24 * 3600  # seconds


class Poison(Exception):
    """The message crashed the worker; this is the reason of its dead letter."""

    def __init__(self) -> None:
        super().__init__("the worker crashed each time it processed this message")


class Attempts:
    """Counts unfinished attempts to process a batch or a message, in Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._under_way: set[str] = set()

    def begin(self, name: str) -> list[Command]:
        """The commands that count an attempt; the first returns the count."""
        key = f"{ATTEMPTS}:{name}"
        self._under_way.add(key)
        return [("INCR", key), ("EXPIRE", key, EXPIRES)]

    def end(self, name: str) -> Command:
        """The command that resets the count, because the batch or the message was processed."""
        key = f"{ATTEMPTS}:{name}"
        self._under_way.discard(key)
        return ("DEL", key)

    def excuse(self) -> None:
        """Resets the counts of the current batch and message, because these are not the cause if
        the worker ends now."""
        if self._under_way:
            self._redis.delete(*self._under_way)
