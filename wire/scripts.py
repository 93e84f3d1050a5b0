"""Runs several Redis commands as one script: atomically, and in one round trip.

With redis-py, a transaction (MULTI, EXEC) of as many commands takes the client about twice the
time. If it depends on a value, it also needs two more round trips (WATCH, GET).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from redis import Redis

# The words of a command, such as ("GET", "key").
Command = Sequence[str | bytes | int | float]

# ARGV has the number of the condition's arguments and these arguments; then, for each command, the
# number of its words and its words.
RUN = """
local results = {}
local at = ARGV[1] + 2
while ARGV[at] do
    local last = at + ARGV[at]
    results[#results + 1] = redis.call(unpack(ARGV, at + 1, last))
    at = last + 1
end
return results
"""


def run(redis: Redis, commands: Iterable[Command]) -> list[Any]:
    """Runs the commands; returns their results as Redis sends them."""
    result: list[Any] = redis.eval(RUN, 0, 0, *_words(commands))
    return result


def run_if(
    redis: Redis, condition: str, keys: Command, arguments: Command, commands: Iterable[Command]
) -> bool:
    """Runs the commands unless `condition` returns false; returns whether it ran them.

    condition: Lua code. It finds `keys` in KEYS, and `arguments` in ARGV from ARGV[2] on.
    """
    words = len(arguments), *arguments, *_words(commands)
    return redis.eval(condition + RUN, len(keys), *keys, *words) is not None


def _words(commands: Iterable[Command]) -> list[str | bytes | int | float]:
    words: list[str | bytes | int | float] = []
    for command in commands:
        words += len(command), *command
    return words
