"""Looks after what the workers do not: pending predictions, declarations, lost acknowledgements."""

import logging
import signal
import threading
from datetime import UTC, datetime

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from tool import metrics
from tool.database import Database, DatabaseError
from tool.model_client import Declaration, ModelClient, ModelRefused, ModelUnavailable
from tool.worker import COMMITTED, COMPLETE, DECLARATION, stored_declaration
from wire.tables import ModelRow, PredictionRow

log = logging.getLogger("tool.attendant")

ROUND = 1.0
PENDING_AT_ONCE = 2_000
PENDING_COUNTED = 10_001


class Attendant:
    """One process beside the workers; several do no harm."""

    def __init__(self, redis: Redis, database: Database, client: ModelClient) -> None:
        self._redis = redis
        self._database = database
        self._client = client
        self._declared: bytes | None = None
        self._new: Declaration | None = None
        self._failing: set[str] = set()

    def attend(self, stop: threading.Event) -> None:
        """One round after the other, until told to stop."""
        while not stop.is_set():
            for task in (self.acknowledge, self.declare, self.catch_up, self.count_pending):
                name = task.__name__
                try:
                    task()
                    self._failing.discard(name)
                except (DatabaseError, RedisError, ModelUnavailable) as error:
                    if name not in self._failing:
                        log.warning("%s; trying again until it works", error)
                    self._failing.add(name)
            stop.wait(ROUND)

    def acknowledge(self) -> None:
        """Tells the buffer what is in the database, when Redis has forgotten it."""
        if self._redis.hexists(COMMITTED, COMPLETE):
            return
        with self._redis.pipeline() as pipe:
            for row in self._database.positions():
                # What a worker has said since is newer.
                pipe.hsetnx(COMMITTED, f"{row.stream}/{row.part}", row.seq)
            # Also when nothing is stored: the buffer waits for this word.
            pipe.hset(COMMITTED, COMPLETE, _now())
            pipe.execute()

    def declare(self) -> None:
        """Keeps what the models need in Redis for the workers, and in table `models` for later."""
        self._publish()
        declaration = self._client.declaration()
        if declaration is not None:
            self._new = declaration
            self._declared = msgspec.json.encode(declaration)
            log.info(
                "champion %s version %s; in shadow: %s",
                declaration.champion.model,
                declaration.champion.version,
                ", ".join(f"{m.model} {m.version}" for m in declaration.shadows) or "none",
            )
            self._publish()

    def _publish(self) -> None:
        # Told once by the model API, so it is kept until it is written in both places.
        if self._new is not None:
            self._database.remember_models(list(_rows(self._new)))
            self._new = None
        known = self._redis.get(DECLARATION)
        if self._declared is None and known is None:
            self._declared = stored_declaration(self._database)
        if self._declared is not None and known != self._declared:
            self._redis.set(DECLARATION, self._declared)

    def catch_up(self) -> None:
        """Fills in the predictions that waited for their model, oldest first.

        A model that does not answer holds up no other.
        """
        failure: ModelUnavailable | None = None
        for model in self._database.models():
            name, version, filled = model.model, model.version, 0
            try:
                while rows := self._database.pending(name, version, PENDING_AT_ONCE):
                    filled += self._fill_in(name, version, rows)
            except ModelUnavailable as error:
                failure = error
            if filled:
                log.info("filled in %d predictions of %s %s", filled, name, version)
        if failure is not None:
            raise failure

    def count_pending(self) -> None:
        """Of very many, only that they are."""
        metrics.PENDING.set(self._database.waiting(PENDING_COUNTED))

    def _fill_in(self, model: str, version: str, rows: list[PredictionRow]) -> int:
        features = [row.features for row in rows]
        now = _now()
        try:
            probabilities = self._client.predict(model, version, features)
            filled = [
                row._replace(probability=probability, reason=None, created_at=now)
                for row, probability in zip(rows, probabilities, strict=True)
            ]
        except ModelRefused as error:
            if len(rows) > 1:
                half = len(rows) // 2
                return self._fill_in(model, version, rows[:half]) + self._fill_in(
                    model, version, rows[half:]
                )
            reason = f"refused by the model: {error}"[:255]
            filled = [rows[0]._replace(probability=None, reason=reason, created_at=now)]
        self._database.fill_in(filled)
        metrics.PREDICTIONS.labels("later").inc(sum(row.probability is not None for row in filled))
        return len(rows)


def _rows(declaration: Declaration) -> list[ModelRow]:
    return [
        ModelRow(
            model.model, model.version, role, msgspec.json.encode(model.features).decode(), _now()
        )
        for role, models in (
            ("champion", [declaration.champion]),
            ("shadow", declaration.shadows),
        )
        for model in models
    ]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def attend(redis: Redis, database: Database, client: ModelClient) -> None:
    """Runs until SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Attendant(redis, database, client).attend(stop)
