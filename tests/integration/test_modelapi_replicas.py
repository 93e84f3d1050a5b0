"""Tests two replicas of the model API that share their state in a table of a real MariaDB."""

import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from modelapi import champion
from modelapi.artifact import Ref
from modelapi.champion import StateError
from modelapi.state_table import StateTable
from tests.support import servers
from tests.support.modelapi_server import add_linear, command, copy_models, fetch, gunicorn
from tests.support.waiting import wait_until
from tool.database import connect
from tool.declarations import Publisher, Subscriber
from tool.model_client import ModelClient
from tool.model_server import ModelUnavailable
from wire.settings import SecretFile

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = copy_models(tmp_path / "models", "formula")
    add_linear(models, "plain", "1", -2.0)
    add_linear(models, "plain", "2", -3.0)
    return models


@pytest.fixture
def url(new_database: Callable[[str], str]) -> str:
    return new_database("mariadb")


def run(models: Path, url: str, line: str) -> str:
    with mock.patch.dict(os.environ, MODEL_STATE_URL=url):
        code, out, err = command(models, models / "none", *line.split())
    assert (code, err) == (0, "")
    return out


class InTurns:
    """A client that reaches both replicas, like a tool behind a load balancer."""

    def __init__(self, urls: list[str]) -> None:
        self._clients = itertools.cycle([ModelClient(url, 5.0) for url in urls])

    def declaration(self) -> Any:
        return next(self._clients).declaration()


def test_a_promotion_and_a_rollback_reach_both_replicas_and_remain(
    models: Path, url: str, tmp_path: Path, with_tables: Callable[[str], str]
) -> None:
    database = connect(with_tables("sqlite"))
    seen: list[str] = []
    answers: list[Any] = []
    stop = threading.Event()
    run(models, url, "promote plain 1")

    def publish(redis: Any, urls: list[str]) -> None:
        client: Any = InTurns(urls)
        publisher, worker = Publisher(redis, database, client), Subscriber(redis, database)
        while not stop.is_set():
            with suppress(ModelUnavailable):  # on a slow machine, the request may time out
                publisher.publish()
            time.sleep(0.02)
            if (changed := worker.changed()) is not None:
                seen.append(changed.champion.version)

    def ask(replica: str) -> None:
        while not stop.is_set():
            with suppress(OSError):  # on a slow machine, the request may time out
                answers.append(fetch(f"{replica}/api/model", [{"age": 50.0}] * 20)[:2])

    with ExitStack() as stack:
        redis = stack.enter_context(servers.redis_server(tmp_path))
        replicas = [
            stack.enter_context(gunicorn(models, models / "none", MODEL_STATE_URL=url))
            for _ in range(2)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(3))
        running = [pool.submit(publish, redis, replicas)]
        try:
            wait_until(lambda: seen == ["1"])
            running += [pool.submit(ask, replica) for replica in replicas]
            for line, version in (
                ("promote plain 2", "2"),
                ("rollback", "1"),
                ("promote plain 2", "2"),
            ):
                run(models, url, line)
                wait_until(lambda version=version: champions(replicas) == {version})  # type: ignore[misc]
                wait_until(lambda version=version: seen[-1] == version)  # type: ignore[misc]
        finally:
            stop.set()
        for thread in running:
            thread.result(60)
    assert seen == ["1", "2", "1", "2"]
    assert {status for status, _ in answers} == {200}, "each replica answers all the time"
    for _, predictions in answers:
        assert len(predictions) == 20
        assert len({(each["model"], each["version"]) for each in predictions}) == 1
    history = [line.split("\t")[2:] for line in run(models, url, "history").splitlines()]
    assert history == [
        ["promote", "plain/1"],
        ["promote", "plain/2"],
        ["rollback", "plain/1"],
        ["promote", "plain/2"],
    ]


def champions(replicas: list[str]) -> set[str]:
    """The versions of the champion in 20 answers of each replica, enough to reach all workers."""
    return {
        fetch(f"{url}/api/model")[1]["champion"]["version"] for url in replicas for _ in range(20)
    }


def test_no_concurrent_change_is_lost(url: str, models: Path) -> None:
    def change(number: int) -> bool:
        own = StateTable(url, SecretFile(), models / "default.json")
        try:
            own.change(
                "shadow",
                f"m{number}/1",
                f"person {number}",
                lambda state: champion.shadow(state, Ref(f"m{number}", "1")),
            )
        except StateError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = [number for number, done in enumerate(pool.map(change, range(16))) if done]
    history = StateTable(url, SecretFile(), models / "default.json").history()
    assert made
    assert [entry.id for entry in history] == list(range(1, len(made) + 1))
    assert {entry.actor for entry in history} == {f"person {number}" for number in made}
    assert {ref.model for ref in history[-1].state.shadows} == {f"m{number}" for number in made}


def test_an_unavailable_database_is_reported_in_one_line(models: Path) -> None:
    with mock.patch.dict(os.environ, MODEL_STATE_URL="mysql://root@127.0.0.1:1/none"):
        code, out, err = command(models, models / "none", "list")
    assert (code, out) == (1, "")
    assert err.startswith("MySQL 127.0.0.1: ")
    assert err.count("\n") == 1
