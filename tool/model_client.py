"""Client of the model API: reads the declaration and requests predictions."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from tool import inference, json_rows
from tool.features import FeatureSet
from tool.model_server import (
    INVALID,
    InvalidRows,
    ModelServer,
    ModelUnavailable,
    NoAnswer,
    TooLarge,
    Unsupported,
)
from tool.pauses import Key, Pauses
from wire.alarms import Policy
from wire.drift import Reference
from wire.features import Feature

log = logging.getLogger("tool.model")

# Maximum size of a request's body: about 30,000 rows of four features.
BYTES_PER_CALL = 1_000_000
# Seconds until a server that did not know the path for several models is asked again. It may have
# been upgraded.
ASK_AGAIN = 60
Rows = Sequence[Sequence[float | None]]


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

    @property
    def key(self) -> Key:
        return self.model, self.version


class Declaration(msgspec.Struct, frozen=True):
    """The champion, whose predictions the ward page shows, and the shadows, which are only compared
    with it. change: the number of the last change of roles or alarm rules; 0 before the first
    change, -1 for a declaration that was restored from table `models`.
    """

    champion: Model
    shadows: list[Model] = []
    change: int = 0


_declaration = msgspec.json.Decoder(Declaration)

Asked = Sequence[tuple[Model, Rows]]
Answer = list[float] | ModelUnavailable | InvalidRows


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
    """Requests declarations and predictions. After a failure of a model, further requests to it
    fail at once during a pause of up to `pause_max` seconds.
    """

    def __init__(
        self, url: str, timeout: float, token_file: str = "", pause_max: float = 8.0
    ) -> None:
        self._server = ModelServer(url, timeout, token_file)
        self._etag = ""
        self._together_from, self._only_json = 0.0, False
        self._pauses = Pauses(pause_max)

    def declaration(self) -> Declaration | None:
        """The declaration; None if it has not changed since the last call. Raises
        ModelUnavailable."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        response = self._server.ask("GET", "/api/model", b"", headers)
        if response.status == 304:
            return None
        if response.status != 200:
            raise ModelUnavailable(f"{self._server.url} answered {response.status}")
        try:
            declaration = read_declaration(response.data)
        except ValueError as error:
            raise ModelUnavailable(
                f"{self._server.url} sent an invalid declaration: {error}"
            ) from None
        self._etag = response.headers.get("ETag", "")
        return declaration

    def describe(self, model: str, version: str) -> Model:
        """The declaration of one version, even if it is not in use. Raises ModelUnavailable."""
        response = self._server.ask("GET", json_rows.path(model, version), b"", {})
        try:
            if response.status != 200:
                raise ValueError(_reason(response.data))
            described = msgspec.json.decode(response.data, type=Model)
            feature_set(described)
        except ValueError as error:
            raise ModelUnavailable(f"{self._server.url}: {model} {version}: {error}") from None
        return described

    def predict(self, model: Model, rows: Rows) -> list[float]:
        """One output per row, 0 to 1. Raises ModelUnavailable or InvalidRows."""
        [answer] = self.predict_all([(model, rows)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def predict_all(self, asked: Asked) -> list[Answer]:
        """For each model, one output per row, or the error."""
        width = sum(len(model.features) for model, _ in asked)
        return self._in_steps(asked, max(1, BYTES_PER_CALL // (8 * width or 1)))

    def _in_steps(self, asked: Asked, step: int) -> list[Answer]:
        """The answers to requests of at most `step` rows per model."""
        parts: list[list[Answer]] = []
        for start in range(0, max([1, *(len(rows) for _, rows in asked)]), step):
            some = [(model, rows[start : start + step]) for model, rows in asked]
            try:
                parts.append(self._answers(some))
            except TooLarge:
                parts.append(self._in_steps(some, (step + 1) // 2))
        return [_joined(each) for each in zip(*parts, strict=True)]

    def _answers(self, asked: Asked) -> list[Answer]:
        """The answers of the models that are not paused. Raises TooLarge."""
        due = [each for each in asked if each[1] and not self._pauses.running(each[0].key)]
        found: dict[Key, Answer] = {}
        for (model, _), answer in zip(due, self._send(due), strict=True):
            found[model.key] = answer
            if isinstance(answer, ModelUnavailable):
                self._pauses.failed(model.key, answer)
            elif isinstance(answer, list):
                self._pauses.answered(model.key)
        paused = ModelUnavailable("paused after a failure")
        return [found.get(model.key, paused if rows else []) for model, rows in asked]

    def _send(self, asked: Asked) -> list[Answer]:
        """Asks several models in one request, if the server supports that and all of them have
        answered the last time: a model that fails must not affect the others. Waits for at most
        one answer that does not come, because the batch waits too."""
        supported = time.monotonic() >= self._together_from
        if len(asked) > 1 and supported and not any(m.key in self._pauses for m, _ in asked):
            try:
                return self._send_together(asked)
            except NoAnswer as error:
                return [error] * len(asked)
            except Unsupported:
                self._together_from = time.monotonic() + ASK_AGAIN
            except (ModelUnavailable, InvalidRows) as error:
                log.debug("asking each model, because one may be the cause: %s", error)
        answers: list[Answer] = []
        for model, rows in asked:
            silent = answers[-1:] if answers and isinstance(answers[-1], NoAnswer) else []
            answers += silent or [self._send_alone(model, rows)]
        return answers

    def _send_together(self, asked: Asked) -> list[Answer]:
        request = inference.requests([(*model.key, rows) for model, rows in asked])
        read = partial(inference.all_probabilities, [model.key for model, _ in asked])
        longest = max(len(rows) for _, rows in asked)
        found = self._server.exchange(inference.ALL, request, longest, read)
        return [
            self._checked(len(rows), answer) for (_, rows), answer in zip(asked, found, strict=True)
        ]

    def _send_alone(self, model: Model, rows: Rows) -> Answer:
        """Asks one model in the format that the server supports. Raises TooLarge."""
        exchange, count = self._server.exchange, len(rows)
        try:
            if not self._only_json:
                path, read = (
                    inference.path(*model.key),
                    partial(inference.probabilities, *model.key),
                )
                with suppress(Unsupported):
                    return self._checked(
                        count, exchange(path, inference.request(rows), count, read)
                    )
            request = json_rows.request([feature["name"] for feature in model.features], rows)
            path, read = json_rows.path(*model.key), partial(json_rows.probabilities, *model.key)
            found = exchange(path, request, count, read)
        except (ModelUnavailable, InvalidRows) as error:
            return error
        self._only_json = True
        return self._checked(count, found)

    def _checked(self, rows: int, found: Sequence[float] | inference.Failed) -> Answer:
        if isinstance(found, inference.Failed):
            if found.status in INVALID:
                return InvalidRows(str(found)[:200])
            return ModelUnavailable(f"{self._server.url} answered {found.status}: {found}")
        if len(found) != rows:
            return ModelUnavailable(f"{len(found)} answers for {rows} rows")
        for probability in found:
            if not 0 <= probability <= 1:
                return ModelUnavailable(f"{probability} is not a probability")
        return list(found)


def _joined(parts: Sequence[Answer]) -> Answer:
    """The outputs of all parts, or the first error."""
    outputs: list[float] = []
    for part in parts:
        if isinstance(part, Exception):
            return part
        outputs += part
    return outputs


class _Problem(msgspec.Struct):
    """An error of the model API, in the form of RFC 9457."""

    detail: str


def _reason(answer: bytes) -> str:
    """The sentence in an error of the model API; of another answer, its beginning."""
    try:
        return msgspec.json.decode(answer, type=_Problem).detail
    except msgspec.DecodeError:
        return answer[:200].decode(errors="replace")
