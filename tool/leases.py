"""Distributes the partitions evenly among all running tools, by leases.

A lease prevents two tools from working on the same partition. Leases may overlap briefly, for
example after Redis has lost data; even then the positions in the database prevent duplicate rows.
"""

import time
from collections.abc import Collection
from typing import Any

from redis import Redis

from wire.keys import TOOLS, lease_key, tool_key
from wire.leases import acquire, release, renew

# Seconds after which a dead or disconnected tool loses its leases.
LEASE_SECONDS = 10
# Seconds after a loss of data in Redis during which each tool takes only the partitions that it had
# before.
PAUSE = 3.0


class Leases:
    """The leases of one tool. A tool that is killed and starts again under the same name has its
    leases at once; under another name it waits until they expire.
    """

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis: Any = redis
        self._tool = name
        self._held: set[int] = set()
        self._take_no_more_until = 0.0

    def renew(self, partitions: Collection[int]) -> list[int]:
        """Renews all leases, and acquires free ones up to this tool's share. Call this method at
        least every second. Returns the partitions to work on. A lease beyond the share is kept
        until `release`, so that the current job can finish. Raises RedisError.
        """
        share = self._share(len(partitions))
        holders = self._holders(partitions)
        for part in self._held - {part for part, tool in holders.items() if tool == self._tool}:
            self._take_no_more_until = time.monotonic() + PAUSE
            self._held.discard(part)
            if part in holders and holders[part] is None:
                self._take(part)
        for part in self._held:
            renew(self._redis, lease_key(part), self._tool, LEASE_SECONDS)
        if time.monotonic() > self._take_no_more_until:
            for part, tool in holders.items():
                if part not in self._held and len(self._held) < share:
                    if tool == self._tool:
                        self._held.add(part)  # this tool had it before it was killed
                    elif tool is None:
                        self._take(part)
        return sorted(self._held)[:share]

    def release(self, part: int) -> None:
        """Releases the lease of a partition."""
        self._held.discard(part)
        release(self._redis, lease_key(part), self._tool)

    def release_all(self) -> None:
        """Releases all leases and unregisters this tool."""
        for part in set(self._held):
            self.release(part)
        self._redis.srem(TOOLS, self._tool)
        self._redis.delete(tool_key(self._tool))

    def _share(self, partitions: int) -> int:
        """The number of partitions for this tool; if they cannot be shared evenly, the first tools
        get one more."""
        tools = self._running()
        least, more = divmod(partitions, len(tools))
        return least + (tools.index(self._tool) < more)

    def _running(self) -> list[str]:
        """The ids of all running tools, including this one, in an order that is the same for all
        tools.
        """
        with self._redis.pipeline() as pipe:
            pipe.sadd(TOOLS, self._tool)
            pipe.set(tool_key(self._tool), "", ex=LEASE_SECONDS)
            pipe.smembers(TOOLS)
            tools = sorted(tool.decode() for tool in pipe.execute()[-1])
        alive = self._redis.mget(map(tool_key, tools))
        # Redis may have lost its data, and so this tool's key, since the transaction.
        running = [
            tool
            for tool, value in zip(tools, alive, strict=True)
            if value is not None or tool == self._tool
        ]
        if ended := set(tools) - set(running):
            self._redis.srem(TOOLS, *ended)
        return running

    def _holders(self, partitions: Collection[int]) -> dict[int, str | None]:
        found = self._redis.mget(map(lease_key, partitions))
        tools = [tool.decode() if tool is not None else None for tool in found]
        return dict(zip(partitions, tools, strict=True))

    def _take(self, part: int) -> None:
        if acquire(self._redis, lease_key(part), self._tool, LEASE_SECONDS):
            self._held.add(part)
