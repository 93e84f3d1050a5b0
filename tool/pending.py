"""Fills in pending predictions once their model answers."""

import logging
import time
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from tool import metrics
from tool.database import Database, Waiting
from tool.model_client import Model, ModelClient
from tool.model_server import InvalidRows, ModelUnavailable
from tool.times import now
from wire import stored_features
from wire.stored_features import Values
from wire.tables import PredictionRow

log = logging.getLogger("tool")

AT_ONCE = 2_000  # maximum number of predictions per request
COUNTED = 10_001  # maximum of the metric
# Maximum seconds per model and round, because the other tasks of the background process, such as
# the alarms, wait meanwhile.
SECONDS = 2.0


class CatchUp:
    """Requests predictions for the pending rows of each model."""

    def __init__(self, database: Database, client: ModelClient) -> None:
        self._database = database
        self._client = client

    def fill_in(self) -> None:
        """Fills in the pending predictions of each model, oldest first. Each model gets at most
        SECONDS plus the time of one request. An unavailable model does not delay the others;
        ModelUnavailable is raised at the end. Raises DatabaseError.
        """
        failure: ModelUnavailable | None = None
        for row in sorted(self._database.models(), key=lambda row: (row.model, row.version)):
            model = Model(row.model, row.version, msgspec.json.decode(row.features))
            filled = 0
            until = time.monotonic() + SECONDS
            try:
                while time.monotonic() < until and (
                    waiting := self._database.pending(row.model, row.version, AT_ONCE)
                ):
                    features = self._features(waiting)
                    filled += self._ask(model, [each.row for each in waiting], features)
            except ModelUnavailable as error:
                failure = error
            if filled:
                log.info(
                    "%d pending predictions of %s %s filled in", filled, row.model, row.version
                )
        if failure is not None:
            raise failure

    def count(self) -> None:
        """Updates the metric of pending predictions, which counts up to COUNTED."""
        metrics.PENDING.set(self._database.waiting(COUNTED))

    def _features(self, waiting: Sequence[Waiting]) -> list[Values]:
        # Read after the predictions, because a model may have been declared meanwhile.
        names = {(row.model, row.version): row.names for row in self._database.models()}
        return [
            stored_features.read(
                row.features, names[row.model, row.version], array, names[model, version]
            )
            for row, model, version, array in waiting
        ]

    def _ask(self, model: Model, rows: Sequence[PredictionRow], features: Sequence[Values]) -> int:
        try:
            answers = self._client.predict(model, features)
        except InvalidRows as error:
            if len(rows) > 1:
                half = len(rows) // 2
                first = self._ask(model, rows[:half], features[:half])
                return first + self._ask(model, rows[half:], features[half:])
            reason = f"rejected by the model: {error}"[:255]
            filled = [replace(rows[0], output=None, reason=reason, created_at=now())]
        else:
            at = now()
            filled = [
                replace(row, output=output, reason=None, created_at=at)
                for row, output in zip(rows, answers, strict=True)
            ]
            metrics.PREDICTIONS.labels("later").inc(len(filled))
        self._database.fill_in(filled)
        return len(rows)
