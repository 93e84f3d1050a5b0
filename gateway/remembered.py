"""A cache for data that senders repeat: codes, times, patients and beds."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

Rest = TypeVarTuple("Rest")
Result = TypeVar("Result")

SIZE = 8192
# Texts that are longer than this are not cached, because they could fill the memory.
LONGEST = 256


def remembered(function: Callable[[str, *Rest], Result]) -> Callable[[str, *Rest], Result]:
    """Adds a cache to a function. Calls with a long text bypass the cache.

    >>> twice = remembered(lambda text: [text, text])
    >>> twice("a") is twice("a"), twice("a" * 999) is twice("a" * 999)
    (True, False)
    """
    cached = lru_cache(maxsize=SIZE)(function)

    @wraps(function)
    def call(text: str, *rest: *Rest) -> Result:
        return function(text, *rest) if len(text) > LONGEST else cached(text, *rest)

    return call
