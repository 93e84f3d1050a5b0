"""A cache for what senders repeat: their codes, times, patients and beds."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

Rest = TypeVarTuple("Rest")
Result = TypeVar("Result")

SIZE = 8192
# A message may have texts of any length; these would fill the memory.
LONGEST = 256


def remembered(function: Callable[[str, *Rest], Result]) -> Callable[[str, *Rest], Result]:
    """Returns the function with a cache; a call with a long text goes around it.

    >>> twice = remembered(lambda text: [text, text])
    >>> twice("a") is twice("a"), twice("a" * 999) is twice("a" * 999)
    (True, False)
    """
    cached = lru_cache(maxsize=SIZE)(function)

    @wraps(function)
    def call(text: str, *rest: *Rest) -> Result:
        return function(text, *rest) if len(text) > LONGEST else cached(text, *rest)

    return call
