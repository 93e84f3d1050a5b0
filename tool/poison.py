"""Poison messages: a message that crashes the worker, for instance because it needs all memory.

Redis counts how often each batch was begun. A batch that has crashed the worker `CRASHES` times
is stored message by message, and a message that does so again becomes a dead letter.
"""

from redis.client import Pipeline, Redis

from wire.keys import ATTEMPTS

CRASHES = 3
EXPIRES = 24 * 3600


class Poison(Exception):
    """The reason of a dead letter that crashed the worker."""

    def __init__(self) -> None:
        super().__init__("the worker crashed each time it processed this message")


class Attempts:
    """Counts in Redis how often a batch, or a message, was begun and not ended."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._under_way: set[str] = set()

    def begin(self, name: str, pipe: Pipeline) -> None:
        """Counts an attempt. The pipeline returns the count, and whether it will expire."""
        key = f"{ATTEMPTS}:{name}"
        self._under_way.add(key)
        pipe.incr(key)
        pipe.expire(key, EXPIRES)

    def end(self, name: str, pipe: Pipeline) -> None:
        """The worker survived the batch or the message."""
        key = f"{ATTEMPTS}:{name}"
        self._under_way.discard(key)
        pipe.delete(key)

    def excuse(self) -> None:
        """If the worker ends now, the messages under way are not the cause."""
        if self._under_way:
            self._redis.delete(*self._under_way)
