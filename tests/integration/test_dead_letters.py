"""Tests that `python -m tool replay` counts only the messages that it has replayed."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tool.dead_letters import replay
from wire.tables import RejectedRow


def row(seq: int) -> RejectedRow:
    return RejectedRow("s", seq, 17, "cannot be processed: x", '{"pat_id":17}', "2019-02-01")


class Rejected:
    """A database that returns different rejected messages at each query."""

    def __init__(self, *answers: list[int]) -> None:
        self._answers = list(answers)

    def rejected(self, reason: str) -> list[RejectedRow]:
        return [row(seq) for seq in self._answers.pop(0)]


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        ([1, 2], [3, 4, 5, 6], (2, 0)),
        ([1, 2], [2, 3, 4, 5], (1, 1)),
        ([1, 2], [1, 2], (0, 2)),
        ([], [7], (0, 0)),
    ],
)
def test_messages_that_are_rejected_meanwhile_are_not_counted(
    tmp_path: Path, before: list[int], after: list[int], counted: tuple[int, int]
) -> None:
    with servers.redis_server(tmp_path) as redis:
        ended = threading.Event()

        def do_all_jobs(redis: Any) -> None:
            while not ended.is_set():
                if redis.llen("rq:queue:tool-0") == len(before):
                    redis.flushall()
                time.sleep(0.05)

        tool = threading.Thread(target=do_all_jobs, args=(redis,))
        tool.start()
        try:
            database: Any = Rejected(before, after)
            assert replay(redis, database, 1, "cannot be processed: ") == counted
        finally:
            ended.set()
            tool.join()
