"""Tests the leases on partitions, with a real Redis."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rq import Queue

from tests.support import servers
from tool.leases import Leases
from tool.partitions import to_work_on
from wire.keys import POSITION
from wire.leases import acquire, release, renew


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with servers.redis_server(tmp_path_factory.mktemp("redis")) as client:
        yield client


class Tool:
    """A tool that works on the partitions that it has leased. Its jobs end within a round."""

    def __init__(self, redis: Any, name: str = "") -> None:
        self.leases = Leases(redis, name or secrets.token_hex(8))
        self.parts: set[int] = set()

    def round(self, partitions: int) -> None:
        allowed = set(self.leases.renew(range(partitions)))
        for part in self.parts - allowed:
            self.leases.release(part)
        self.parts = allowed


@settings(max_examples=25, deadline=None)
@given(
    partitions=st.integers(1, 9),
    events=st.lists(st.sampled_from(["join", "leave", "round"]), max_size=12),
)
@example(partitions=4, events=["join", "round", "join", "round", "leave", "join", "join"])
def test_a_partition_never_has_two_tools_and_the_shares_are_even(
    redis: Any, partitions: int, events: list[str]
) -> None:
    redis.flushall()
    tools = [Tool(redis)]
    for event in (*events, "round", "round", "round"):
        if event == "join":
            tools.append(Tool(redis))
        elif event == "leave" and len(tools) > 1:
            tools.pop(0).leases.release_all()
        for tool in tools:
            tool.round(partitions)
            parts = [part for tool in tools for part in tool.parts]
            assert len(parts) == len(set(parts))
    assert {part for tool in tools for part in tool.parts} == set(range(partitions))
    shares = [len(tool.parts) for tool in tools]
    assert max(shares) - min(shares) <= 1


class Wiped:
    """A Redis that loses all data before its nth command."""

    def __init__(self, redis: Any, nth: int) -> None:
        self._redis = redis
        self._left = nth

    def __getattr__(self, command: str) -> Any:
        self._left -= 1
        if self._left == 0:
            self._redis.flushall()
        return getattr(self._redis, command)


@pytest.mark.parametrize("nth", range(1, 20))
def test_a_tool_has_all_leases_again_after_a_loss_in_redis_at_any_command(
    redis: Any, nth: int
) -> None:
    redis.flushall()
    leases = Leases(Wiped(redis, nth), "tool")
    for _ in range(4):
        assert set(leases.renew(range(3))) <= {0, 1, 2}
    assert leases.renew(range(3)) == [0, 1, 2]


def test_after_a_loss_in_redis_each_tool_takes_back_its_own_partitions(redis: Any) -> None:
    redis.flushall()
    tools = [Tool(redis), Tool(redis)]
    for tool in tools * 3:
        tool.round(4)
    before = [tool.parts for tool in tools]
    redis.flushall()
    for tool in tools * 3:
        tool.round(4)
    assert [tool.parts for tool in tools] == before


def test_a_tool_respects_the_lease_of_another(redis: Any) -> None:
    """Simulates a tool that pauses for longer than its lease."""
    redis.flushall()
    paused, other = Tool(redis), Tool(redis)
    paused.round(2)
    redis.flushall()
    other.round(2)
    assert other.parts == {0, 1}
    for tool in (paused, other):
        tool.round(2)
    assert paused.parts.isdisjoint(other.parts)


def test_a_killed_tool_has_its_leases_at_once_when_it_starts_again(redis: Any) -> None:
    redis.flushall()
    killed, other = Tool(redis, "host:9101"), Tool(redis, "host:9102")
    for tool in (killed, other) * 3:
        tool.round(4)
    successor = Tool(redis, "host:9101")
    successor.round(4)
    assert successor.parts == killed.parts
    other.round(4)
    assert other.parts.isdisjoint(successor.parts)
    assert Leases(redis, "host:9103").renew(range(4)) == []


def test_a_tool_that_starts_again_leaves_the_leases_beyond_its_share_to_others(redis: Any) -> None:
    redis.flushall()
    Tool(redis, "host:9101").round(4)
    other = Tool(redis, "host:9102")
    other.round(4)
    successor = Tool(redis, "host:9101")
    successor.round(4)
    assert len(successor.parts) == 2
    assert other.parts == set()


def test_a_lease_is_renewed_and_released_only_by_its_holder(redis: Any) -> None:
    redis.flushall()
    assert acquire(redis, "icu:lease:0", "first", 10)
    assert not acquire(redis, "icu:lease:0", "second", 10)
    assert renew(redis, "icu:lease:0", "first", 100)
    assert not renew(redis, "icu:lease:0", "second", 1_000)
    assert 10 < redis.ttl("icu:lease:0") <= 100
    release(redis, "icu:lease:0", "second")
    assert redis.get("icu:lease:0") == b"first"
    release(redis, "icu:lease:0", "first")
    assert redis.get("icu:lease:0") is None
    assert not renew(redis, "icu:lease:0", "first", 10)


def test_a_former_partition_is_worked_on_until_it_has_no_jobs_and_the_buffer_has_finished_it(
    redis: Any,
) -> None:
    redis.flushall()
    queues = [Queue(f"tool-{part}", connection=redis) for part in range(7)]
    for queue in queues:
        queue.enqueue("none")
        redis.delete(queue.key)  # Redis keeps the name of the empty queue
    Queue("tool-x", connection=redis).enqueue("none")
    assert to_work_on(redis, 2) == [0, 1]
    redis.set(POSITION, b'{"stream":"s","seq":9,"parts":{},"partitions":4}')
    assert to_work_on(redis, 2) == [0, 1, 2, 3]
    redis.set(POSITION, b'{"stream":"s","seq":9,"parts":{},"partitions":2}')
    queues[4].enqueue("none")
    redis.lpush(queues[5].intermediate_queue_key, "job")
    redis.zadd(queues[6].started_job_registry.key, {"job": 1})
    assert to_work_on(redis, 2) == [0, 1, 4, 5, 6]
    assert to_work_on(redis, 9) == list(range(9))
