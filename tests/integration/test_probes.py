"""Tests the tool's metrics about Redis, the database, the token and backups."""

import base64
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from redis import Redis

from tests.support.servers import redis_server
from tool.database import connect
from tool.probes import Probes, expiry
from wire.keys import BACKUP
from wire.tokens import make_token


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"icu_tool_{name}", labels)


def measure(redis: Redis, url: str, token: str = "") -> None:
    with closing(connect(url)) as database:
        Probes(redis, database.session, token).measure()


@pytest.mark.parametrize("kind", ["sqlite", "mysql", "mariadb"])
def test_servers_that_answer_are_up(
    new_database: Callable[[str], str], kind: str, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as redis:
        redis.config_set("maxmemory", "100mb")
        measure(redis, new_database(kind))
        assert value("peer_up", peer="redis") == value("peer_up", peer="database") == 1
        assert value("redis_memory_max_bytes") == 100 * 2**20
        assert 0 < (value("redis_memory_bytes") or 0) < 100 * 2**20
        if kind != "sqlite":
            connections = value("database_connections") or 0
            assert 0 < connections < (value("database_connections_max") or 0)


def test_servers_that_do_not_answer_are_down(tmp_path: Path) -> None:
    gone = Redis(unix_socket_path=str(tmp_path / "none"))
    measure(gone, f"sqlite:///{tmp_path}")  # a folder
    assert value("peer_up", peer="redis") == value("peer_up", peer="database") == 0


def test_without_a_backup_the_time_of_the_last_one_is_that_of_the_first_measurement(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/icu.sqlite"
    with redis_server(tmp_path) as redis:
        before = int(time.time())
        measure(redis, url)
        first = value("last_backup_timestamp_seconds") or 0
        assert before <= first <= time.time()
        redis.set(BACKUP, 12345)
        measure(redis, url)
        assert value("last_backup_timestamp_seconds") == 12345
        redis.set(BACKUP, "damaged")
        measure(redis, url)
        assert before <= (value("last_backup_timestamp_seconds") or 0) <= time.time()


def test_the_expiry_of_the_token_is_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(make_token(b"0" * 32, "HS256", "tool", 3600, ("infer",)) + "\n")
    assert expiry(file) == pytest.approx(time.time() + 3600, abs=60)
    endless = base64.urlsafe_b64encode(b'{"exp": 1%s}' % (b"0" * 400)).decode()
    for text in ("", "a.b.c", "x", f"a.{endless}.c"):
        file.write_text(text)
        assert expiry(file) == 0
    assert expiry(tmp_path / "none") == 0
