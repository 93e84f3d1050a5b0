"""Requests for predictions as JSON objects, for a server without the Open Inference Protocol."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import msgspec


class _Prediction(msgspec.Struct):
    model: str
    version: str
    probability: float


_predictions = msgspec.json.Decoder(list[_Prediction])


def path(model: str, version: str) -> str:
    return f"/api/model?{urlencode({'model': model, 'version': version})}"


def request(
    names: Sequence[str], rows: Sequence[Sequence[float | None]]
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request for the probability of each row."""
    body = msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows])
    return body, {"Content-Type": "application/json"}


def probabilities(
    model: str, version: str, body: bytes, headers: Mapping[str, str]
) -> Sequence[float]:
    """The probabilities in an answer. Raises ValueError if it is invalid, or if another model
    answered."""
    predictions = _predictions.decode(body)
    for prediction in predictions:
        if (prediction.model, prediction.version) != (model, version):
            raise ValueError(
                f"{prediction.model} {prediction.version} answered instead of {model} {version}"
            )
    return [prediction.probability for prediction in predictions]
