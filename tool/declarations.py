"""The declaration: the models in use and the features of each.

The background process gets it from the model API and stores it in Redis for the workers, and in
table `models` in case Redis and the model API are unavailable.
"""

import logging
from typing import Any

import msgspec
from redis import Redis

from tool.database import Database
from tool.model_client import Declaration, ModelClient, read_declaration
from tool.times import now
from wire.keys import DECLARATION
from wire.tables import ModelRow

log = logging.getLogger("tool")


class Publisher:
    """Copies the declaration from the model API to Redis and the database."""

    def __init__(self, redis: Redis, database: Database, client: ModelClient) -> None:
        self._redis: Any = redis
        self._database = database
        self._client = client
        self._declared: bytes | None = None
        # The model API sends a declaration only once, so it is kept until it is stored.
        self._unstored: Declaration | None = None

    def publish(self) -> None:
        """Raises DatabaseError, RedisError or ModelUnavailable."""
        self._write()
        declaration = self._client.declaration()
        if declaration is not None:
            self._unstored = declaration
            self._declared = msgspec.json.encode(declaration)
            log.info(
                "champion %s version %s; shadows: %s",
                declaration.champion.model,
                declaration.champion.version,
                ", ".join(f"{m.model} {m.version}" for m in declaration.shadows) or "none",
            )
            self._write()

    def _write(self) -> None:
        if self._unstored is not None:
            self._database.remember_models(model_rows(self._unstored))
            self._unstored = None
        published = self._redis.get(DECLARATION)
        if self._declared is None and published is None:
            self._declared = stored(self._database)
        if self._declared is not None and published != self._declared:
            self._redis.set(DECLARATION, self._declared)


class Subscriber:
    """Reads the declaration in a worker."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self._redis: Any = redis
        self._database = database
        self._declared: bytes | None = None

    @property
    def ready(self) -> bool:
        """Whether a declaration has been read."""
        return self._declared is not None

    def changed(self) -> Declaration | None:
        """The declaration if it has changed since the last call."""
        declared = self._redis.get(DECLARATION)
        if declared is None and self._declared is None:
            declared = stored(self._database)
        if declared is None or declared == self._declared:
            return None
        try:
            declaration = read_declaration(declared)
        except ValueError as error:
            log.warning("%s in Redis is damaged: %s", DECLARATION, error)
            self._redis.delete(DECLARATION)  # the background process will write it again
            return None
        self._declared = declared
        return declaration


def stored(database: Database) -> bytes | None:
    """The declaration in table `models`."""
    roles: dict[str, list[dict[str, object]]] = {"champion": [], "shadow": [], "retired": []}
    for row in database.models():
        features = msgspec.json.decode(row.features)
        declared = {"model": row.model, "version": row.version, "features": features}
        declared["alarm"] = msgspec.json.decode(row.alarm) if row.alarm else None
        roles[row.role].append(declared)
    if not roles["champion"]:
        return None
    return msgspec.json.encode({"champion": roles["champion"][0], "shadows": roles["shadow"]})


def model_rows(declaration: Declaration) -> list[ModelRow]:
    """The declared models as rows of table `models`."""
    models = [("champion", declaration.champion)]
    models += [("shadow", model) for model in declaration.shadows]
    return [
        ModelRow(
            *(model.model, model.version, role, _json(model.features), now()),
            _json(model.alarm) if model.alarm else None,
        )
        for role, model in models
    ]


def _json(features: object) -> str:
    return msgspec.json.encode(features).decode()
