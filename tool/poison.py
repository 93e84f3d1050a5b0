"""Detects poison messages, which crash the worker, for example because they exhaust memory.

Redis counts the attempts to process each batch and, if needed, each message. A batch that has
crashed the worker `CRASHES` times is stored message by message, and a message that then crashes the
worker `CRASHES` times becomes a dead letter.
"""

from redis.client import Pipeline, Redis

from wire.keys import ATTEMPTS

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

    def begin(self, name: str, pipe: Pipeline) -> None:
        """Counts an attempt. The pipeline returns the count and the result of EXPIRE."""
        key = f"{ATTEMPTS}:{name}"
        self._under_way.add(key)
        pipe.incr(key)
        pipe.expire(key, EXPIRES)

    def end(self, name: str, pipe: Pipeline) -> None:
        """Resets the count, because the batch or the message was processed."""
        key = f"{ATTEMPTS}:{name}"
        self._under_way.discard(key)
        pipe.delete(key)

    def excuse(self) -> None:
        """Resets the counts of the current batch and message, because these are not the cause if
        the worker ends now."""
        if self._under_way:
            self._redis.delete(*self._under_way)
