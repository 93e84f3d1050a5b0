"""Client of the model API: reads the declaration and requests predictions."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3

from tool import inference, metrics
from tool.features import FeatureSet
from wire.alarms import Policy
from wire.drift import Reference
from wire.features import Feature

log = logging.getLogger("tool.model")

# Maximum size of a request's body: about 30,000 rows of four features.
BYTES_PER_CALL = 1_000_000
# A server without the Open Inference Protocol answers with one of these statuses. The client then
# sends JSON objects.
NO_BINARY = (404, 405, 415, 501)

Rows = Sequence[Sequence[float | None]]
# (model, version, body, headers) → probabilities.
Read = Callable[[str, str, bytes, Mapping[str, str]], Sequence[float]]


class ModelUnavailable(Exception):
    """The model API gave no valid answer; a later request may succeed."""


class InvalidRows(Exception):
    """The model API rejected these rows."""


class Model(msgspec.Struct, frozen=True):
    """A version of a model, as the model API declares it.

    maximum: the highest number of points of a score, whose output is points / maximum; None if the
    model predicts a probability.
    """

    model: str
    version: str
    features: list[dict[str, Any]]
    alarm: Policy | None = None
    reference: Reference | None = None
    maximum: int | None = None


class Declaration(msgspec.Struct, frozen=True):
    """The champion, whose predictions the ward page shows, and the shadows, which are only compared
    with it. change: the number of the last change of roles or alarm rules; 0 before the first
    change, -1 for a declaration that was restored from table `models`.
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
    """The features of a model. Raises ValueError for an unknown feature."""
    return FeatureSet(Feature.from_declaration(feature) for feature in model.features)


def read_declaration(data: bytes) -> Declaration:
    """Parses a declaration. Raises ValueError if it is invalid or contains an unknown feature."""
    try:
        declaration = _declaration.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(error) from None
    for model in (declaration.champion, *declaration.shadows):
        feature_set(model)
    return declaration


class ModelClient:
    """Persistent connections to the model API, for several threads.

    After a failure of a model, further requests to it fail at once during a pause, so that a
    hanging model does not delay every batch. With each further failure the pause doubles, up to
    `pause_max` seconds.
    """

    def __init__(
        self, url: str, timeout: float, token_file: str = "", pause_max: float = 8.0
    ) -> None:
        self._url = url
        self._timeout = urllib3.Timeout(connect=min(timeout, 1.0), read=timeout)
        # A pool of one host, because PoolManager parses the URL of each request.
        self._pool = urllib3.connection_from_url(url, maxsize=8, retries=False)
        self._prefix = (urllib3.util.parse_url(url).path or "").rstrip("/")
        self._token_file = token_file
        self._etag = ""
        self._only_json = False
        self._pause_max = pause_max
        # For each (model, version): the length of its pause, and the end of the pause.
        self._pauses: dict[tuple[str, str], tuple[float, float]] = {}

    def declaration(self) -> Declaration | None:
        """The declaration; None if it has not changed since the last call. Raises
        ModelUnavailable."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        response = self._ask("GET", "/api/model", b"", headers)
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

    def describe(self, model: str, version: str) -> Model:
        """The declaration of one version, even if it is not in use. Raises ModelUnavailable."""
        response = self._ask("GET", _address(model, version), b"", {})
        try:
            if response.status != 200:
                raise ValueError(response.data[:200].decode(errors="replace"))
            described = msgspec.json.decode(response.data, type=Model)
            feature_set(described)
        except ValueError as error:
            raise ModelUnavailable(f"{self._url}: {model} {version}: {error}") from None
        return described

    def predict(self, model: Model, rows: Rows) -> list[float]:
        """One output per row, 0 to 1. Raises ModelUnavailable or InvalidRows."""
        key = (model.model, model.version)
        pause, until = self._pauses.get(key, (0.0, 0.0))
        if time.monotonic() < until:
            raise ModelUnavailable("paused after a failure")
        probabilities: list[float] = []
        try:
            step = max(1, BYTES_PER_CALL // (8 * len(model.features) or 1))
            for start in range(0, len(rows), step):
                probabilities += self._predict(model, rows[start : start + step])
        except ModelUnavailable as error:
            metrics.MODEL_FAILURES.inc()
            if not pause:
                log.warning("model: %s %s: %s; its predictions stay pending", *key, error)
            pause = min(max(1.0, pause * 2), self._pause_max)
            self._pauses[key] = (pause, time.monotonic() + pause)
            raise
        if self._pauses.pop(key, None):
            metrics.RECONNECTS.labels("model").inc()
            log.info("model: %s %s: available again", *key)
        return probabilities

    def _predict(self, model: Model, rows: Rows) -> list[float]:
        with metrics.MODEL_SECONDS.time():
            response, read = self._infer(model, rows)
        if response.status == 413 and len(rows) > 1:
            half = len(rows) // 2
            return self._predict(model, rows[:half]) + self._predict(model, rows[half:])
        # A 404 is not in this list, because it can be temporary, for example while models/ is being
        # copied.
        if response.status in (400, 422):
            raise InvalidRows(response.data.decode("utf-8", "replace")[:200])
        if response.status != 200:
            raise ModelUnavailable(f"{self._url} answered {response.status}")
        try:
            probabilities = list(read(model.model, model.version, response.data, response.headers))
        except (ValueError, RecursionError) as error:
            raise ModelUnavailable(f"{self._url} sent invalid predictions: {error}") from None
        if len(probabilities) != len(rows):
            raise ModelUnavailable(f"{len(probabilities)} answers for {len(rows)} rows")
        for probability in probabilities:
            if not 0 <= probability <= 1:
                raise ModelUnavailable(f"{probability} is not a probability")
        return probabilities

    def _infer(self, model: Model, rows: Rows) -> tuple[urllib3.BaseHTTPResponse, Read]:
        """Sends the rows in the format that the server knows; returns the answer and the function
        that reads it."""
        if not self._only_json:
            body, headers = inference.request(rows)
            path = inference.path(model.model, model.version)
            response = self._ask("POST", path, body, headers)
            if response.status not in NO_BINARY:
                return response, inference.probabilities
        names = [feature["name"] for feature in model.features]
        body = msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows])
        path = _address(model.model, model.version)
        response = self._ask("POST", path, body, {"Content-Type": "application/json"})
        self._only_json = response.status == 200
        return response, _probabilities

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        try:
            if self._token_file:
                token = Path(self._token_file).read_text().strip()
                headers = {**headers, "Authorization": f"Bearer {token}"}
            return self._pool.urlopen(
                method,
                self._prefix + path,
                body=body or None,
                headers=headers,
                timeout=self._timeout,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ModelUnavailable(f"{self._url}: {error}") from None


def _address(model: str, version: str) -> str:
    return f"/api/model?{urlencode({'model': model, 'version': version})}"


def _probabilities(
    model: str, version: str, body: bytes, headers: Mapping[str, str]
) -> Sequence[float]:
    """The probabilities in an answer of /api/model. Raises ValueError if it is invalid, or if
    another model answered."""
    predictions = _predictions.decode(body)
    for prediction in predictions:
        if (prediction.model, prediction.version) != (model, version):
            raise ValueError(
                f"{prediction.model} {prediction.version} answered instead of {model} {version}"
            )
    return [prediction.probability for prediction in predictions]
