"""Tests the buffer between a faulty stream and a real Redis."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from hypothesis import given
from hypothesis import strategies as st

from buffer import metrics
from buffer.follow import Buffer
from buffer.outage import Outage
from buffer.pending import Pending
from buffer.queues import Queues
from buffer.receive import Receiver
from buffer.settings import Settings
from buffer.sse import BOM, CUT, KEPT, EventParser
from tests.support import servers
from tool.acknowledge import Acknowledgements, acknowledge
from tool.database import Changes, connect
from wire.batches import Batch, Position, partition_of
from wire.messages import Rejected, decode
from wire.settings import HttpUrl

LIMIT = 3 * KEPT
MEASURED = '{"type":"reading","pat_id":1,"day":"2019-02-03","hour":7,"minute":25}'


def event(seq: int, data: str, stream: str = "5eed0001") -> bytes:
    return f"id: {stream}-{seq}\ndata: {data}\n\n".encode()


class TestEventParser:
    LONG = '{"type":"reading","day":"' + " " * (2 * LIMIT) + '","pat_id":1}'

    @given(
        cuts=st.lists(st.integers(0, 6 * LIMIT), max_size=12),
        near=st.lists(st.tuples(st.integers(0, 40), st.integers(-8, 8)), max_size=12),
        line_end=st.sampled_from(["\n", "\r\n", "\r"]),
        bom=st.booleans(),
    )
    def test_no_message_is_lost_at_any_chunk_boundary(
        self, cuts: list[int], near: list[tuple[int, int]], line_end: str, bom: bool
    ) -> None:
        messages = ['{"a":1}', "x" * LIMIT, self.LONG, '{"b":2}', self.LONG, '{"c":3}']
        text = b"".join(event(seq, data) for seq, data in enumerate(messages, 1))
        text = BOM * bom + text.replace(b"\n", line_end.encode())
        # Some splits are next to line ends, because such splits find more faults than random ones.
        ends = [at for at, byte in enumerate(text) if byte in b"\r\n"]
        cuts += [max(0, ends[index % len(ends)] + off) for index, off in near]
        parser = EventParser(LIMIT + 50)
        found = []
        edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
        for start, end in pairwise(edges):
            found += parser.feed(text[start:end])
        assert [each.id for each in found] == [f"5eed0001-{seq}" for seq in range(1, 7)]
        for each, data in zip(found, messages, strict=True):
            if data != self.LONG:
                assert each.data == data.encode()
                continue
            assert len(each.data) <= KEPT + 1
            assert each.data[:1000] == data[:1000].encode()
            with pytest.raises(Rejected):
                decode(each.data)

    def test_a_split_line_end_after_an_event_that_is_too_long_loses_nothing(self) -> None:
        parser = EventParser(LIMIT)
        parser.feed(b"id: 5eed0001-1\r\ndata: " + b"x" * 2 * LIMIT + b"\r\n\r")
        [second] = parser.feed(b"\nid: 5eed0001-2\r\ndata: {}\r\n\r\n")[-1:]
        assert (second.id, second.data) == ("5eed0001-2", b"{}")

    @pytest.mark.parametrize("cut", range(6))
    def test_only_the_first_byte_order_mark_is_dropped(self, cut: int) -> None:
        text = BOM + BOM + b"data: 1\n\n" + BOM + b"data: 2\n\n" + b"data: 3\n\n"
        parser = EventParser()
        found = parser.feed(text[:cut]) + parser.feed(text[cut:])
        # A later line that starts with a byte order mark is an unknown field.
        assert [each.data for each in found] == [b"3"]

    @pytest.mark.parametrize("cut", range(6))
    def test_a_byte_order_mark_does_not_change_the_first_event(self, cut: int) -> None:
        text = BOM + b"id: 5eed0001-1\ndata: 1\n\n"
        parser = EventParser()
        [found] = parser.feed(text[:cut]) + parser.feed(text[cut:])
        assert (found.id, found.data) == ("5eed0001-1", b"1")

    def test_an_event_that_is_too_long_takes_bounded_memory(self) -> None:
        parser = EventParser(LIMIT)
        parser.feed(b"id: 5eed0001-1\ndata: ")
        for _ in range(1000):
            assert parser.feed(b"x" * 10_000) == []
            assert len(parser._rest) <= LIMIT
        [found] = parser.feed(b"\r\n\r\n")
        assert found.id == "5eed0001-1"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    """A Redis in which the tool has reported that nothing is stored yet."""
    with servers.redis_server(tmp_path) as connection:
        connection.hset("icu:committed", "since", 1)
        yield connection


@asynccontextmanager
async def buffering(redis: Any, body: bytes, stream: str = "5eed0001") -> AsyncIterator[None]:
    """Runs a buffer on a source that answers every request with `body`."""

    async def sub(request: web.Request) -> web.Response:
        return web.Response(
            body=body, headers={"X-Stream": stream, "Content-Type": "text/event-stream"}
        )

    async with following(redis, sub):
        yield


@asynccontextmanager
async def following(redis: Any, sub: Handler) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/sub", sub)
    async with TestServer(app) as server:
        settings = Settings(stream_url=HttpUrl(server.make_url("/sub")))
        task = asyncio.create_task(Buffer(settings, redis).run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


class Pruned:
    """A source that keeps only its newest messages, like the gateway."""

    def __init__(self, oldest: int, last: int) -> None:
        self.oldest, self.last = oldest, last
        self.asked: list[str] = []

    async def sub(self, request: web.Request) -> web.Response:
        after = request.headers.get("Last-Event-ID", "")
        self.asked.append(after)
        headers = {"X-Stream": "5eed0001", "Content-Type": "text/event-stream"}
        if after and int(after.rpartition("-")[2]) + 1 < self.oldest:
            return web.Response(status=410, headers=headers)
        first = int(after.rpartition("-")[2]) + 1 if after else self.oldest
        events = [event(seq, MEASURED) for seq in range(first, self.last + 1)]
        return web.Response(body=b"".join(events) + END, headers=headers)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def batches(redis: Any) -> list[Batch]:
    """The batches of all jobs."""
    keys = redis.scan_iter("icu:batch:*")
    return [msgspec.msgpack.decode(redis.get(key), type=Batch) for key in keys]


def queued(redis: Any) -> list[tuple[int, bytes]]:
    """The messages of all jobs, in order."""
    return sorted((each.seq, each.data) for batch in batches(redis) for each in batch.messages)


def jobs(redis: Any) -> list[list[int]]:
    """The numbers of each job's messages, in order."""
    return sorted([each.seq for each in batch.messages] for batch in batches(redis))


END = b"event: end\nid: 5eed0001-3\ndata: {}\n\n"


def test_a_message_of_megabytes_is_truncated_and_the_stream_continues(
    redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    small = '{"pat_id":1}'
    body = event(1, small) + event(2, "x" * 5_000_000) + event(3, small) + END

    async def run() -> None:
        async with buffering(redis, body):
            await until(lambda: len(queued(redis)) == 3)

    asyncio.run(run())
    assert [seq for seq, _ in queued(redis)] == [1, 2, 3]
    assert [len(data) <= KEPT + 1 for _, data in queued(redis)] == [True] * 3
    warnings = [record for record in caplog.records if "longer than" in record.message]
    assert len(warnings) == 1


@pytest.mark.parametrize(
    "data",
    ['{"pat_id":1,"x":' + '{"x":' * 5000, '{"pat_id":' + "9" * 5000 + "}", "\xff", "[" * 9000],
)
def test_malformed_messages_are_queued_too(redis: Any, data: str) -> None:
    small = '{"pat_id":1}'
    body = event(1, small) + event(2, data) + event(3, small) + END

    async def run() -> None:
        async with buffering(redis, body):
            await until(lambda: len(queued(redis)) == 3)

    asyncio.run(run())
    assert dict(queued(redis))[2] in (data.encode(), data.encode()[:KEPT] + CUT)


@pytest.mark.parametrize("stream", ["s" * 33, "ward 7", "wärd", "a.b", "a/b", "a:b"])
def test_a_stream_with_an_invalid_name_is_logged_in_one_line(
    redis: Any, caplog: pytest.LogCaptureFixture, stream: str
) -> None:
    async def run() -> None:
        async with buffering(redis, event(1, '{"pat_id":1}', stream) + END, stream):
            await until(lambda: bool(caplog.records))

    asyncio.run(run())
    assert "X-Stream" in caplog.records[0].message
    assert "1 to 32 letters, digits, _ or -" in caplog.records[0].message
    assert redis.get("icu:position") is None


@pytest.mark.parametrize(
    "seq", ["", "x", "-1", "1.0", "9" * 19, "9" * 5000, "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_reading_stops_at_an_event_id_without_a_number(
    redis: Any, caplog: pytest.LogCaptureFixture, seq: str
) -> None:
    body = event(1, "{}") + f"id: 5eed0001-{seq}\ndata: {{}}\n\n".encode() + END

    async def run() -> None:
        async with buffering(redis, body):
            await until(lambda: "is not 5eed0001-<number>" in caplog.text)

    asyncio.run(run())
    assert all(len(record.message) < 300 for record in caplog.records)


def test_pauses_grow_if_a_peer_fails_again_after_each_recovery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> None:
        outage = Outage("stream")
        for _ in range(7):
            await outage.wait(ValueError("not understood"))
            outage.over()

    monkeypatch.setattr("buffer.outage.asyncio.sleep", sleep)
    asyncio.run(run())
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize(
    "harm",
    [
        {"icu:position": b'{"stream":"5eed0001","seq":1,"parts":{},"partitions":0}'},
        {"icu:position": b'{"stream":"5eed0001","seq":-5,"parts":{},"partitions":2}'},
        {"icu:position": b'{"stream":"5eed0001","seq":1,"parts":{},"partitions":99999999999}'},
        {"icu:position": b'{"stream":"5eed0001","seq":1,"parts":{"x":1},"partitions":2}'},
        {"icu:position": b"[]"},
    ],
)
def test_after_a_damaged_position_all_messages_that_are_not_stored_are_read(
    redis: Any, harm: dict[str, bytes]
) -> None:
    redis.mset(harm)

    async def run() -> None:
        body = b"".join(event(seq, f'{{"pat_id":{seq}}}') for seq in (1, 2, 3)) + END
        async with buffering(redis, body):
            await until(lambda: len(queued(redis)) == 3)

    asyncio.run(run())


def test_jobs_of_other_programs_in_a_queue_are_ignored(redis: Any) -> None:
    position = b'{"stream":"5eed0001","seq":1,"parts":{"0":1},"partitions":2}'
    redis.set("icu:position", position)
    redis.rpush("rq:queue:tool-0", "somebody", "some-body-else-s-job")

    async def run() -> None:
        body = event(2, '{"pat_id":1}') + event(3, '{"pat_id":1}') + END
        async with buffering(redis, body):
            await until(lambda: [seq for seq, _ in queued(redis)] == [2, 3])

    asyncio.run(run())


def test_a_source_with_a_short_log_loses_only_the_messages_that_it_dropped(
    redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    position = b'{"stream":"5eed0001","seq":2,"parts":{"0":2,"1":2},"partitions":2}'
    redis.set("icu:position", position)
    source = Pruned(oldest=6, last=8)
    before = metrics.MISSING._value.get()

    async def run() -> None:
        async with following(redis, source.sub):
            await until(lambda: [seq for seq, _ in queued(redis)] == [6, 7, 8])

    asyncio.run(run())
    assert source.asked[:2] == ["5eed0001-2", ""]
    assert metrics.MISSING._value.get() - before == 3
    lost = [record.args for record in caplog.records if record.msg.startswith("messages %d to")]
    assert lost == [(3, 5)]


def test_a_database_that_lacks_acknowledged_messages_gets_them_again(
    redis: Any, tmp_path: Path
) -> None:
    """As after a change of DATABASE_URL, when the stream has already been read to its end."""
    position = b'{"stream":"5eed0001","seq":3,"parts":{"0":2,"1":3},"partitions":2}'
    redis.set("icu:position", position)
    redis.hset("icu:committed", mapping={"5eed0001/0": 2, "5eed0001/1": 3, "01d/0": 7})
    redis.hset("icu:committed", b"damaged\xff", b"9")
    database = connect(f"sqlite:///{tmp_path}/new.sqlite")
    database.create_tables()
    source = Pruned(oldest=1, last=3)

    async def run() -> None:
        async with following(redis, source.sub):
            await until(lambda: bool(source.asked))
            Acknowledgements(redis, database).copy()
            await until(lambda: [seq for seq, _ in queued(redis)] == [1, 2, 3])

    asyncio.run(run())
    assert source.asked[0] == "5eed0001-3"
    database.close()


def test_an_older_copy_of_the_database_is_noticed_while_the_tool_runs(
    redis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = connect(f"sqlite:///{tmp_path}/icu.sqlite")
    database.create_tables()
    database.commit(Changes("5eed0001", 0, 0, 5, "2150-01-01", 1))
    redis.set("icu:position", b"{}")
    monkeypatch.setattr("tool.acknowledge.COMPARE_SECONDS", 0.0)
    known = Acknowledgements(redis, database)
    known.copy()
    assert redis.hget("icu:committed", "5eed0001/0") == b"5"
    assert redis.exists("icu:position")
    servers.rows(database.session.url, "UPDATE positions SET seq = 2")
    known.copy()
    assert redis.hget("icu:committed", "5eed0001/0") == b"2"
    assert not redis.exists("icu:position")
    database.close()


def test_with_an_empty_redis_the_partitions_of_the_database_are_finished_first(
    redis: Any, tmp_path: Path
) -> None:
    """As after a restore of a backup that was made before PARTITIONS changed. Three partitions have
    stored messages, one of them from a time with more partitions, and the setting is 2."""
    patients = {seq: f'{{"pat_id":{seq}}}' for seq in range(1, 31)}
    parts: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for seq, data in patients.items():
        parts[partition_of(data, 3)].append(seq)
    stored = {0: parts[0][-1], 1: parts[1][1], 2: parts[2][3]}
    lacking = [
        seq for part, seqs in parts.items() for seq in seqs if stored[part] < seq <= stored[0]
    ]
    database = connect(f"sqlite:///{tmp_path}/icu.sqlite")
    database.create_tables()
    for part, seq in {**stored, 7: 1}.items():
        partitions = 8 if part == 7 else 3
        database.commit(Changes("5eed0001", part, 0, seq, "2150-01-01", partitions))
    redis.delete("icu:committed")

    async def run() -> None:
        body = b"".join(event(seq, data) for seq, data in patients.items()) + END
        async with buffering(redis, body):
            await asyncio.sleep(0.3)
            assert queued(redis) == []
            Acknowledgements(redis, database).copy()
            await until(lambda: len(queued(redis)) >= len(lacking))

    asyncio.run(run())
    assert sorted(seq for seq, _ in queued(redis)) == sorted(lacking)
    assert {batch.part: batch.partitions for batch in batches(redis)} == {1: 3, 2: 3}
    database.close()


@pytest.mark.parametrize(("last", "count"), [(2, 2), (3, 3), (None, 3)])
def test_each_message_that_is_read_is_counted(last: int | None, count: int) -> None:
    chunk = b"".join(event(seq, MEASURED) for seq in (1, 2, 3)) + END

    async def run() -> int:
        response: Any = SimpleNamespace(content=aiohttp.StreamReader(Mock(), 1 << 16))
        response.content.feed_data(chunk)
        receiver = Receiver(Position("5eed0001", 0, {}, 2), Pending("5eed0001", 2, 100), 100)
        await receiver.run(response, last)
        return receiver.read

    before = metrics.RECEIVED._value.get()
    assert asyncio.run(run()) == count
    assert metrics.RECEIVED._value.get() - before == count


def test_messages_are_collected_while_a_job_is_unfinished(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pending, "PATIENCE", 60.0)
    monkeypatch.setattr(Pending, "AHEAD", 4)
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    before = metrics.RECEIVED._value.get()

    async def sub(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Stream": "5eed0001"})
        await response.prepare(request)
        while True:
            await response.write(await sent.get())

    async def send(seq: int) -> None:
        await sent.put(event(seq, MEASURED))
        await until(lambda: metrics.RECEIVED._value.get() - before == seq)

    def store(seq: int) -> None:
        redis.hset("icu:committed", f"5eed0001/{partition_of(MEASURED, 2)}", seq)

    async def run() -> None:
        async with following(redis, sub):
            await send(1)
            await until(lambda: jobs(redis) == [[1]])
            for seq in (2, 3, 4):
                await send(seq)
            store(1)
            await until(lambda: jobs(redis) == [[1], [2, 3, 4]])
            for seq in (5, 6, 7, 8):  # `AHEAD` messages are queued behind an unfinished job
                await send(seq)
            await until(lambda: jobs(redis) == [[1], [2, 3, 4], [5, 6, 7, 8]])

    asyncio.run(run())


def test_the_tool_reports_each_commit_to_the_buffer(redis: Any) -> None:
    queues = Queues(redis)
    redis.set("icu:stored", "damaged")
    for seq in (1, 2):
        assert acknowledge(redis, Batch("5eed0001", 0, 0, []), seq, {}, [])
    assert queues.wait_for_commit()
    assert not queues.wait_for_commit()  # one report stands for both


def test_a_change_of_the_number_of_partitions_is_stored_with_the_position(redis: Any) -> None:
    """Otherwise, a buffer that ends in between would leave the former number for good."""
    queues = Queues(redis)
    assert queues.take_lease()
    assert queues.load() is None
    for partitions in (3, 2):
        queues.enqueue(Position("5eed0001", 7, {0: 7}, partitions), [])
        assert queues.partitions("5eed0001") == partitions


def test_the_position_has_the_time_of_the_newest_message(redis: Any) -> None:
    async def run() -> None:
        async with buffering(redis, event(1, MEASURED) + event(2, "not JSON") + END):
            await until(lambda: len(queued(redis)) == 2)

    asyncio.run(run())
    clock = json.loads(redis.get("icu:position"))["clock"]
    assert clock == datetime(2019, 2, 3, 7, 25, tzinfo=UTC).timestamp()
