"""Tests that `python -m tool replay` counts only the messages that it has replayed."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tool.database import connect
from tool.dead_letters import replay
from wire.tables import columns

FAILED, INVALID = "cannot be processed: x", "temperature 378.0 is not between 26 and 45 °C"


def reject(file: Path, reasons: dict[int, str]) -> None:
    """Replaces the rejected messages of a database. reasons: by message number."""
    with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS rejected ({', '.join(columns('rejected'))})"
        )
        connection.execute("DELETE FROM rejected")
        connection.executemany(
            "INSERT INTO rejected VALUES ('s', ?, 17, ?, '{\"pat_id\":17}', '2019-02-01')",
            reasons.items(),
        )


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        ([1, 2], dict.fromkeys([3, 4, 5, 6], FAILED), (2, 0)),
        ([1, 2], dict.fromkeys([2, 3, 4, 5], FAILED), (1, 1)),
        ([1, 2], dict.fromkeys([1, 2], FAILED), (0, 2)),
        ([1, 2], {1: INVALID}, (1, 1)),
        ([], {7: FAILED}, (0, 0)),
    ],
)
def test_only_the_replayed_messages_are_counted(
    tmp_path: Path, before: list[int], after: dict[int, str], counted: tuple[int, int]
) -> None:
    file = tmp_path / "icu.sqlite"
    reject(file, dict.fromkeys(before, FAILED))
    with servers.redis_server(tmp_path) as redis:
        ended = threading.Event()

        def do_all_jobs(redis: Any) -> None:
            while not ended.is_set():
                if before and redis.llen("rq:queue:tool-0") == len(before):
                    reject(file, after)
                    redis.flushall()
                time.sleep(0.05)

        tool = threading.Thread(target=do_all_jobs, args=(redis,))
        tool.start()
        try:
            database = connect(f"sqlite:///{file}")
            assert replay(redis, database, 1, "cannot be processed: ") == counted
        finally:
            ended.set()
            tool.join()


def test_the_withdrawal_of_a_replayed_reading_is_replayed_after_it(tmp_path: Path) -> None:
    file = tmp_path / "icu.sqlite"
    unknown = "message {} is not a stored reading".format
    reject(file, {1: INVALID, 2: FAILED, 3: unknown(2), 4: unknown(1), 5: unknown(7)})
    with servers.redis_server(tmp_path) as redis:
        replayed: list[bytes] = []

        def do_all_jobs() -> None:
            while not redis.keys("rq:queue:*"):
                time.sleep(0.05)
            time.sleep(0.3)
            replayed.extend(redis.lrange("rq:queue:tool-0", 0, -1))
            redis.flushall()

        # The buffer still fills one partition, while the setting is already 8.
        redis.set("icu:position", b'{"stream":"s","seq":5,"parts":{"0":5},"partitions":1}')
        tool = threading.Thread(target=do_all_jobs)
        tool.start()
        replay(redis, connect(f"sqlite:///{file}"), 8, "cannot be processed: ")
        tool.join()
    assert replayed == [b"replay-s-0-2-1", b"replay-s-0-3-1"]
