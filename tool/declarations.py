"""The declaration: the models in use and the features of each.

The background process gets it from the model API and stores it in Redis for the workers. It also
stores it in table `models`, in case Redis loses it while the model API is unavailable.
"""

import logging
import time
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import WatchError

from tool.database import Database
from tool.model_client import Declaration, ModelClient, read_declaration
from tool.times import now
from wire.keys import DECLARATION
from wire.tables import ModelRow

log = logging.getLogger("tool")

# A declaration that no replica has confirmed for this number of seconds may be replaced.
CONFIRMED = 10.0


class Publisher:
    """Copies the declaration from the model API to Redis and the database.

    After a change, the replicas of the model API declare different models for a moment, or for
    longer if one cannot load a model. So the declaration of a later change is copied at once, but
    any other only after no replica has confirmed the current one for `CONFIRMED` seconds.
    """

    def __init__(self, redis: Redis, database: Database, client: ModelClient) -> None:
        self._redis: Any = redis
        self._database = database
        self._client = client
        # The last answer of the model API, which answers 304 while nothing has changed.
        self._answered: Declaration | None = None
        self._confirmed = time.monotonic()
        # The last answer that changed the features of a stored version. It is logged once and not
        # published.
        self._conflicting: bytes | None = None
        # The declaration that is both in Redis and in the database, and its models.
        self._published: bytes | None = None
        self._in_use: set[tuple[object, ...]] = set()

    def publish(self) -> None:
        """Copies the current declaration. Raises DatabaseError, RedisError or ModelUnavailable."""
        published = self._redis.get(DECLARATION) or self._restore()
        if published is not None and published != self._published:
            self._remember(published)
        self._answered = self._client.declaration() or self._answered
        if self._answered is None:
            return
        answered = msgspec.json.encode(self._answered)
        if answered == published:
            self._confirmed = time.monotonic()
        elif self._replaces(self._answered, published):
            self._replace(published, answered, self._answered)

    def keep(self) -> None:
        """Stores the models in use again if the database was replaced by one that lacks them.

        `publish` does not check this, because it must go on while the database is unavailable.
        Raises DatabaseError or RedisError.
        """
        # Another tool may have published other models.
        published = self._redis.get(DECLARATION)
        if published != self._published or published is None:
            return
        if self._in_use != _in_use(self._database.models()):
            self._remember(published)

    def _restore(self) -> bytes | None:
        """Restores a declaration that Redis has lost; returns it, or None if there is none."""
        declared = self._published or stored(self._database)
        if declared is not None:
            self._redis.set(DECLARATION, declared, nx=True)
        return declared

    def _remember(self, published: bytes) -> None:
        try:
            declaration = read_declaration(published)
        except ValueError:
            return  # the workers delete an invalid declaration
        rows = model_rows(declaration)
        self._database.remember_models(rows)
        self._published, self._in_use = published, _in_use(rows)

    def _replaces(self, answered: Declaration, published: bytes | None) -> bool:
        try:
            known = read_declaration(published or b"")
        except ValueError:
            return True
        unconfirmed = time.monotonic() - self._confirmed
        return answered.change > known.change or unconfirmed > CONFIRMED

    def _replace(self, published: bytes | None, answered: bytes, declaration: Declaration) -> None:
        """Replaces the declaration, unless it changes the features of a stored version, or another
        tool has replaced it since it was read."""
        if changed := changed_features(self._database.models(), model_rows(declaration)):
            if answered != self._conflicting:
                log.error(
                    "the features of %s differ from those in table models: the declaration is not"
                    " used; add the model as a new version",
                    changed,
                )
            self._conflicting = answered
            return
        self._remember(answered)
        with self._redis.pipeline() as pipe:
            pipe.watch(DECLARATION)
            if pipe.get(DECLARATION) != published:
                return
            pipe.multi()
            pipe.set(DECLARATION, answered)
            try:
                pipe.execute()
            except WatchError:
                return
        self._confirmed = time.monotonic()
        log.info(
            "champion %s version %s; shadows: %s",
            declaration.champion.model,
            declaration.champion.version,
            ", ".join(f"{m.model} {m.version}" for m in declaration.shadows) or "none",
        )


class Subscriber:
    """Reads the declaration from Redis or, until it has one, from table `models`."""

    def __init__(self, redis: Redis, database: Database) -> None:
        self._redis: Any = redis
        self._database = database
        self._declared: bytes | None = None

    @property
    def ready(self) -> bool:
        """Whether a declaration has been read."""
        return self._declared is not None

    def changed(self) -> Declaration | None:
        """The declaration if it has changed since the last call; otherwise None. Deletes an invalid
        declaration from Redis."""
        declared = self._redis.get(DECLARATION)
        if declared is None and self._declared is None:
            declared = stored(self._database)
        return self.read(declared)

    def read(self, declared: bytes | None) -> Declaration | None:
        """The same for a caller that has read the declaration from Redis. declared: None if Redis
        has none."""
        if declared is None or declared == self._declared:
            return None
        try:
            declaration = read_declaration(declared)
        except ValueError as error:
            log.warning("%s in Redis is damaged, so it is deleted: %s", DECLARATION, error)
            self._redis.delete(DECLARATION)  # the background process restores it
            return None
        self._declared = declared
        return declaration


def stored(database: Database) -> bytes | None:
    """The declaration in table `models`, as JSON; None if the table has no champion."""
    roles: dict[str, list[dict[str, object]]] = {"champion": [], "shadow": [], "retired": []}
    for row in database.models():
        features = msgspec.json.decode(row.features)
        declared = {"model": row.model, "version": row.version, "features": features}
        declared["alarm"] = msgspec.json.decode(row.alarm) if row.alarm else None
        declared["maximum"] = row.maximum
        roles[row.role].append(declared)
    if not roles["champion"]:
        return None
    champion, shadows = roles["champion"][0], roles["shadow"]
    # Change -1, because any answer of the model API is newer.
    return msgspec.json.encode({"champion": champion, "shadows": shadows, "change": -1})


def changed_features(known: list[ModelRow], rows: list[ModelRow]) -> str:
    """Names the versions whose features differ from the stored ones, separated by commas; empty if
    none do. The features of a version must not change, because they name the values of stored
    predictions."""
    names = {(row.model, row.version): row.names for row in known}
    return ", ".join(
        f"{row.model} {row.version}"
        for row in rows
        if names.get((row.model, row.version), row.names) != row.names
    )


def model_rows(declaration: Declaration) -> list[ModelRow]:
    """The declared models as rows of table `models`."""
    models = [("champion", declaration.champion)]
    models += [("shadow", model) for model in declaration.shadows]
    return [
        ModelRow(
            *(model.model, model.version, role, _json(model.features), now()),
            _json(model.alarm) if model.alarm else None,
            model.maximum,
        )
        for role, model in models
    ]


def _in_use(rows: list[ModelRow]) -> set[tuple[object, ...]]:
    """The champion and the shadows, each with the revision of its alarm rule."""
    return {
        (row.model, row.version, row.role, msgspec.json.decode(row.alarm or "{}").get("revision"))
        for row in rows
        if row.role != "retired"
    }


def _json(features: object) -> str:
    return msgspec.json.encode(features).decode()
