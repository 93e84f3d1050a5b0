"""Messages, batches and the handler of a worker, for tests without Redis and without a
model API.
"""

import json
from collections.abc import Sequence
from math import isnan
from typing import Any

import pytest

from tool.data_handler import DataHandler
from tool.database import Database
from tool.declarations import model_rows
from tool.model_client import Declaration, Model
from tool.model_server import ModelUnavailable
from wire.batches import Batch, RawMessage
from wire.features import Feature

FEATURES: list[dict[str, Any]] = [
    Feature.parse(name, required=True).declaration()
    for name in ("age", "heart_rate__mean", "heart_rate__count")
]
DECLARATION = Declaration(Model("m", "1", FEATURES))
STAY = {"pat_id": 17, "date_admission": "2150-02-28"}


class Client:
    """A stub model. It returns the mean heart rate divided by 1000, or is unavailable."""

    def __init__(self, away: bool = False) -> None:
        self.away = away
        self.calls: list[tuple[str, str, int]] = []

    def predict(self, model: Model, rows: Sequence[Sequence[float | None]]) -> list[float]:
        self.calls.append((model.model, model.version, len(rows)))
        if self.away:
            raise ModelUnavailable
        names = [feature["name"] for feature in model.features]
        named = [dict(zip(names, row, strict=True)) for row in rows]
        means = [row.get("heart_rate__mean") for row in named]
        return [0.0 if mean is None or isnan(mean) else mean / 1000 for mean in means]

    def predict_all(
        self, asked: Sequence[tuple[Model, Sequence[Sequence[float | None]]]]
    ) -> list[list[float] | ModelUnavailable]:
        answers: list[list[float] | ModelUnavailable] = []
        for model, rows in asked:
            try:
                answers.append(self.predict(model, rows))
            except ModelUnavailable as error:
                answers.append(error)
        return answers


def message(value: object = 80.0, **other: Any) -> bytes:
    """A message with a reading of the heart rate. other: fields to replace or to add."""
    found = {
        "type": "reading",
        **STAY,
        "age": 63.2,
        "date_discharge": None,
        "day": "2150-03-01",
        "hour": 7,
        "parameter": "heart_rate",
        "value": value,
    }
    return json.dumps(found | other).encode()


def other(kind: str, **members: Any) -> bytes:
    """A message of another type, about the same stay."""
    return json.dumps({"type": kind, **STAY} | members).encode()


def batch(after: int, *messages: bytes, stream: str = "s", part: int = 0) -> Batch:
    """A batch of these messages, numbered from `after` + 1 on."""
    numbered = [RawMessage(seq, 0.0, data) for seq, data in enumerate(messages, after + 1)]
    return Batch(stream, part, after, numbered)


def handler_of(
    database: Database, declaration: Declaration = DECLARATION, client: Client | None = None
) -> DataHandler:
    found = DataHandler(database, client or Client())  # type: ignore[arg-type]
    found.declare(declaration)
    return found


def remember(database: Database, declaration: Declaration) -> None:
    """Stores the models of a declaration, as the tool's background process does before it
    publishes the declaration to the workers."""
    database.remember_models(model_rows(declaration))


def write_vitals_every(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets how often `vitals` is written while more batches wait, for a ward of any size."""
    monkeypatch.setattr("tool.stays.VITALS_SOON", seconds)
    monkeypatch.setattr("tool.stays.VITALS_EVERY", seconds)
