"""Tests the declaration that the tools publish, with a real Redis and a real database."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import servers
from tool import declarations
from tool.database import Database, connect
from tool.declarations import Publisher, Subscriber
from tool.model_client import Declaration, Model
from wire.features import Feature
from wire.keys import DECLARATION

OLD, NEW = (Declaration(Model("risk", version, []), change=int(version)) for version in "12")
PARTLY = Declaration(NEW.champion, [OLD.champion], change=2)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    with servers.redis_server(tmp_path) as client:
        yield client


@pytest.fixture
def database(with_tables: Callable[[str], str]) -> Database:
    return connect(with_tables("sqlite"))


class Replicas:
    """A model API whose replicas take turns to answer."""

    def __init__(self, *answers: Declaration) -> None:
        self.answers = list(answers)

    def declaration(self) -> Declaration:
        self.answers.append(self.answers.pop(0))
        return self.answers[-1]


class Tools:
    """Two tools that publish in turn. A worker records each change in `seen`."""

    def __init__(self, redis: Any, database: Database, replicas: Replicas) -> None:
        client: Any = replicas
        self._publishers = [Publisher(redis, database, client) for _ in range(2)]
        self._worker = Subscriber(redis, database)
        self.seen: list[Declaration] = []

    def rounds(self, count: int) -> None:
        for _ in range(count):
            for publisher in self._publishers:
                publisher.publish()
                publisher.keep()
                if (changed := self._worker.changed()) is not None:
                    self.seen.append(changed)


def roles(database: Database) -> dict[str, str]:
    return {row.version: row.role for row in database.models()}


def test_replicas_that_disagree_change_the_declaration_only_once(
    redis: Any, database: Database
) -> None:
    replicas = Replicas(OLD)
    tools = Tools(redis, database, replicas)
    tools.rounds(3)
    replicas.answers = [OLD, NEW, OLD]
    tools.rounds(10)
    assert tools.seen == [OLD, NEW]
    assert roles(database) == {"1": "retired", "2": "champion"}


def test_a_replica_that_lacks_a_model_does_not_change_the_declaration(
    redis: Any, database: Database
) -> None:
    tools = Tools(redis, database, Replicas(NEW, PARTLY, PARTLY))
    tools.rounds(10)
    assert len(tools.seen) == 1


def test_a_declaration_that_no_replica_confirms_is_replaced(
    redis: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model API has lost its state, so it numbers its changes from 1 again."""
    replicas = Replicas(NEW)
    tools = Tools(redis, database, replicas)
    tools.rounds(2)
    replicas.answers = [OLD]
    tools.rounds(2)
    assert tools.seen == [NEW]
    monkeypatch.setattr(declarations, "CONFIRMED", 0.0)
    tools.rounds(2)
    assert tools.seen == [NEW, OLD]
    assert roles(database) == {"1": "champion", "2": "retired"}


def test_a_lost_declaration_is_published_again(redis: Any, database: Database) -> None:
    replicas = Replicas(NEW, OLD)
    tools = Tools(redis, database, replicas)
    tools.rounds(3)
    redis.flushall()
    tools.rounds(3)
    assert tools.seen == [NEW]
    assert redis.exists(DECLARATION)


def test_a_database_that_is_replaced_while_the_tool_runs_gets_the_declaration(
    redis: Any, database: Database
) -> None:
    tools = Tools(redis, database, Replicas(PARTLY))
    tools.rounds(2)
    declared = roles(database)
    servers.rows(database.session.url, "DELETE FROM models WHERE version = '2'")
    tools.rounds(1)
    assert roles(database) == declared == {"1": "shadow", "2": "champion"}
    seen = servers.rows(database.session.url, "SELECT seen_at FROM models")
    tools.rounds(2)
    assert servers.rows(database.session.url, "SELECT seen_at FROM models") == seen


def test_after_a_loss_of_redis_the_tables_are_used_until_the_model_api_answers(
    redis: Any, database: Database
) -> None:
    Tools(redis, database, Replicas(OLD)).rounds(2)
    redis.flushall()
    worker = Subscriber(redis, database)
    restored = worker.changed()
    assert restored is not None
    assert restored.champion == OLD.champion
    # The next change has the same number as a change that was lost with the state file.
    other = Declaration(NEW.champion, change=0)
    tools = Tools(redis, database, Replicas(other))
    tools.rounds(2)
    assert tools.seen[-1] == other


def test_a_stored_version_keeps_its_features(redis: Any, database: Database) -> None:
    """Otherwise the features of stored predictions would get wrong names."""
    ages, means = (Feature.parse(name).declaration() for name in ("age", "heart_rate__mean"))
    first, changed, later = (
        Declaration(Model("risk", version, features), change=change)
        for change, (version, features) in enumerate(
            [("1", [ages, means]), ("1", [means, ages]), ("2", [means])]
        )
    )
    replicas = Replicas(first)
    tools = Tools(redis, database, replicas)
    for answer in (first, changed, later):
        replicas.answers = [answer]
        tools.rounds(2)
    assert tools.seen == [first, later]
    names = {row.version: row.names for row in database.models()}
    assert names == {"1": ["age", "heart_rate__mean"], "2": ["heart_rate__mean"]}
