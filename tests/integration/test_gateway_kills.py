"""Tests that no message is lost or doubled after kills, and that a log whose last writes are lost
has complete messages only.
"""

import asyncio
import random
import shutil
from contextlib import closing
from pathlib import Path

from gateway.log import Log
from tests.support.gateway import gateway, send_all
from tests.support.gateway_kills import run
from tests.support.hl7_corpus import corpus


def test_tables_after_kills_equal_those_without_kills(tmp_path: Path) -> None:
    outcome = run(12, tmp_path, seed=1)
    assert outcome.equal
    assert outcome.kills > 2  # a fast sender may end before the last kill


def test_a_log_whose_last_writes_are_lost_holds_the_first_messages(tmp_path: Path) -> None:
    """After a power loss, the WAL of the log may end at any byte."""
    log, copy = tmp_path / "log", tmp_path / "copy"

    async def fill() -> None:
        async with gateway(log) as running:
            for message in corpus():  # each message has a transaction of its own
                assert await send_all(running.mllp, [message]) == ["AA"]
            for suffix in ("", "-wal"):
                shutil.copy(f"{log}{suffix}", f"{tmp_path}/lost{suffix}")

    asyncio.run(fill())
    rows = _rows(log)
    wal = (tmp_path / "lost-wal").read_bytes()
    kept = []
    rng = random.Random(3)
    for size in sorted(rng.randrange(len(wal) + 1) for _ in range(60)):
        shutil.copy(tmp_path / "lost", copy)
        Path(f"{copy}-shm").unlink(missing_ok=True)
        Path(f"{copy}-wal").write_bytes(wal[:size] + rng.randbytes(rng.choice((0, 99, 9_999))))
        found = _rows(copy)
        assert found == rows[: len(found)]
        kept.append(len(found))
    assert kept == sorted(kept)
    assert len(set(kept)) > 20


def _rows(path: Path) -> list[tuple[object, ...]]:
    """The messages of a log, and their events, which must have no gap."""
    with closing(Log(path)) as log:
        read = log.connection.execute
        rows = read("SELECT id, digest, first, last FROM received ORDER BY id").fetchall()
        events = read("SELECT first, last FROM events ORDER BY last").fetchall()
        assert [row[2:] for row in rows if row[3] >= row[2]] == events
        assert log.last == (rows[-1][3] if rows else 0)
        return rows
