"""Fills in pending predictions once their model answers."""

import logging

from msgspec.structs import replace

from tool import metrics
from tool.database import Database
from tool.model_client import ModelClient, ModelRefused, ModelUnavailable
from tool.times import now
from wire.tables import PredictionRow

log = logging.getLogger("tool")

AT_ONCE = 2_000
COUNTED = 10_001


class CatchUp:
    """Requests the pending predictions of each model."""

    def __init__(self, database: Database, client: ModelClient) -> None:
        self._database = database
        self._client = client

    def fill_in(self) -> None:
        """Fills in pending predictions, oldest first. An unavailable model does not delay the
        others.

        Raises DatabaseError, or ModelUnavailable at the end.
        """
        failure: ModelUnavailable | None = None
        for model, version in sorted({(row.model, row.version) for row in self._database.models()}):
            filled = 0
            try:
                while rows := self._database.pending(model, version, AT_ONCE):
                    filled += self._ask(model, version, rows)
            except ModelUnavailable as error:
                failure = error
            if filled:
                log.info("%d pending predictions of %s %s filled in", filled, model, version)
        if failure is not None:
            raise failure

    def count(self) -> None:
        """Updates the metric, which has an upper limit."""
        metrics.PENDING.set(self._database.waiting(COUNTED))

    def _ask(self, model: str, version: str, rows: list[PredictionRow]) -> int:
        try:
            answers = self._client.predict(model, version, [row.features for row in rows])
        except ModelRefused as error:
            if len(rows) > 1:
                half = len(rows) // 2
                first, second = rows[:half], rows[half:]
                return self._ask(model, version, first) + self._ask(model, version, second)
            reason = f"rejected by the model: {error}"[:255]
            filled = [replace(rows[0], probability=None, reason=reason, created_at=now())]
        else:
            at = now()
            filled = [
                replace(row, probability=probability, reason=None, created_at=at)
                for row, probability in zip(rows, answers, strict=True)
            ]
            metrics.PREDICTIONS.labels("later").inc(len(filled))
        self._database.fill_in(filled)
        return len(rows)
