"""Client of the model API: reads the declaration and requests predictions."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import urllib3

from tool import metrics
from tool.features import FeatureSet
from wire.alarms import Policy
from wire.drift import Reference
from wire.features import Feature

log = logging.getLogger("tool.model")

# Maximum size of a request's body: about 7,000 rows of four features.
BYTES_PER_CALL = 1_000_000


class ModelUnavailable(Exception):
    """There is no valid answer; a later request may succeed."""


class ModelRefused(Exception):
    """The model API rejected these rows."""


class Model(msgspec.Struct, frozen=True):
    """A version of a model, as the model API declares it."""

    model: str
    version: str
    features: list[dict[str, Any]]
    alarm: Policy | None = None
    reference: Reference | None = None


class Declaration(msgspec.Struct, frozen=True):
    """The champion, whose predictions the pages show, and the shadows, whose predictions are only
    stored.

    change: the number of the last change of roles or alarm rules; 0 before the first.
    """

    champion: Model
    shadows: list[Model] = []
    change: int = 0


class _Prediction(msgspec.Struct):
    model: str
    version: str
    probability: float


_predictions = msgspec.json.Decoder(list[_Prediction])
_declaration = msgspec.json.Decoder(Declaration)


def feature_set(model: Model) -> FeatureSet:
    """The features of a model. Raises ValueError for an unknown one."""
    return FeatureSet(Feature.from_declaration(feature) for feature in model.features)


def read_declaration(data: bytes) -> Declaration:
    """Parses the declaration. Raises ValueError, also for an unknown feature."""
    try:
        declaration = _declaration.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(error) from None
    for model in (declaration.champion, *declaration.shadows):
        feature_set(model)
    return declaration


class ModelClient:
    """One persistent connection to the model API.

    After a failure of a model, further requests fail at once for a pause that doubles up to
    `rest_max` seconds, so that a hanging model does not delay every batch.
    """

    def __init__(
        self, url: str, timeout: float, token_file: str = "", rest_max: float = 8.0
    ) -> None:
        self._url = f"{url}/api/model"
        self._timeout = urllib3.Timeout(connect=min(timeout, 1.0), read=timeout)
        self._pool = urllib3.PoolManager(maxsize=1, retries=False)
        self._token_file = token_file
        self._etag = ""
        self._rest_max = rest_max
        # (model, version) → length of the pause, and its end.
        self._rests: dict[tuple[str, str], tuple[float, float]] = {}

    def declaration(self) -> Declaration | None:
        """The declaration; None if it has not changed. Raises ModelUnavailable."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        response = self._ask("GET", "", b"", headers)
        if response.status == 304:
            return None
        if response.status != 200:
            raise ModelUnavailable(f"{self._url} answered {response.status}")
        try:
            declaration = read_declaration(response.data)
        except ValueError as error:
            raise ModelUnavailable(f"{self._url} sent an invalid declaration: {error}") from None
        self._etag = response.headers.get("ETag", "")
        return declaration

    def predict(self, model: str, version: str, rows: Sequence[str]) -> list[float]:
        """One probability per row; a row is a JSON object of features.

        Raises ModelUnavailable or ModelRefused.
        """
        asked = (model, version)
        rest, until = self._rests.get(asked, (0.0, 0.0))
        if time.monotonic() < until:
            raise ModelUnavailable("paused after a failure")
        probabilities: list[float] = []
        try:
            step = max(1, BYTES_PER_CALL // len(rows[0])) if rows else 1
            for start in range(0, len(rows), step):
                probabilities += self._predict(model, version, rows[start : start + step])
        except ModelUnavailable as error:
            metrics.MODEL_FAILURES.inc()
            if not rest:
                log.warning("model: %s; predictions stay pending", error)
            rest = min(max(1.0, rest * 2), self._rest_max)
            self._rests[asked] = (rest, time.monotonic() + rest)
            raise
        if self._rests.pop(asked, None):
            metrics.RECONNECTS.labels("model").inc()
            log.info("model: %s %s: available again", model, version)
        return probabilities

    def _predict(self, model: str, version: str, rows: Sequence[str]) -> list[float]:
        with metrics.MODEL_SECONDS.time():
            response = self._ask(
                "POST",
                f"?model={model}&version={version}",
                f"[{','.join(rows)}]".encode(),
                {"Content-Type": "application/json"},
            )
        if response.status == 413 and len(rows) > 1:
            half = len(rows) // 2
            return self._predict(model, version, rows[:half]) + self._predict(
                model, version, rows[half:]
            )
        # 404 is temporary too, for example while models/ is being copied.
        if response.status in (400, 422):
            raise ModelRefused(response.data.decode("utf-8", "replace")[:200])
        if response.status != 200:
            raise ModelUnavailable(f"{self._url} answered {response.status}")
        try:
            predictions = _predictions.decode(response.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ModelUnavailable(f"{self._url} sent invalid predictions: {error}") from None
        if len(predictions) != len(rows):
            raise ModelUnavailable(f"{len(predictions)} answers for {len(rows)} rows")
        for prediction in predictions:
            if (prediction.model, prediction.version) != (model, version):
                raise ModelUnavailable(f"{prediction.model} answered instead of {model}")
            if not 0 <= prediction.probability <= 1:
                raise ModelUnavailable(f"{prediction.probability} is not a probability")
        return [prediction.probability for prediction in predictions]

    def _ask(
        self, method: str, query: str, body: bytes, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        try:
            if self._token_file:
                token = Path(self._token_file).read_text().strip()
                headers = {**headers, "Authorization": f"Bearer {token}"}
            return self._pool.request(
                method, self._url + query, body=body or None, headers=headers, timeout=self._timeout
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ModelUnavailable(f"{self._url}: {error}") from None
