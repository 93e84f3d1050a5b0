"""Inference requests of the Open Inference Protocol: for one model, as the protocol defines them,
and for several models at once, which is an extension of this server.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from time import perf_counter_ns
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from flask import Blueprint, Response, g, request
from msgspec import Meta
from numpy.typing import NDArray

from modelapi import tensors
from modelapi.api_errors import ApiError, BadInput, TooLarge
from modelapi.content import Decoder, request_body
from modelapi.endpoints import registry, statistics
from modelapi.limits import REQUESTS, VALUES
from modelapi.predictor import Rows
from modelapi.repository import Model
from modelapi.rows import require
from modelapi.turns import Turns

blueprint = Blueprint("inference", __name__, url_prefix="/v2")

LENGTH = "Inference-Header-Content-Length"
MEDIA_TYPES = ("application/json", "application/octet-stream")
_turns = Turns(waiting=1)

# The outputs by name, and the parameters of the response.
Computed = tuple[dict[str, NDArray[Any]], dict[str, str]]


class Sent(NamedTuple):
    """A body, and the header with the length of its JSON part. `direct` puts it into `g`."""

    body: bytes
    json_length: str | None


class NamedRequest(tensors.InferenceRequest, kw_only=True):
    """An inference request that names its model, like a response of the protocol."""

    model_name: str
    model_version: str | None = None


class Requests(msgspec.Struct):
    """Inference requests for several models. Their binary parts follow in the same order."""

    requests: Annotated[list[NamedRequest], Meta(min_length=1, max_length=REQUESTS)]


_requests = msgspec.json.Decoder(Requests)


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> Response:
    """Returns the outputs for rows of features."""
    return _one(registry().find(name, version), _predicted)


@blueprint.post("/models/<name>/explain")
@blueprint.post("/models/<name>/versions/<version>/explain")
def explain(name: str, version: str | None = None) -> Response:
    """Returns, for each row, a base and the features' contributions; their sum is the row's value
    on the scale."""
    return _one(registry().find(name, version), _explained)


@blueprint.post("/infer")
def infer_all() -> Response:
    """Returns the outputs of several models. A request that fails has its error in place of the
    outputs."""
    asked, binary = _body(_requests)
    sizes = [_binary_size(each) for each in asked.requests]
    if sum(sizes) != len(binary):
        raise BadInput(f"The inputs take {sum(sizes)} binary bytes, the body has {len(binary)}.")
    responses: list[dict[str, Any]] = []
    parts: list[bytes] = []
    values = 0
    for each, size in zip(asked.requests, sizes, strict=True):
        own, binary = binary[:size], binary[size:]
        values += sum(prod(tensor.shape) for tensor in each.inputs)
        start = perf_counter_ns()
        try:
            if values > VALUES:
                raise TooLarge(f"A body may have {VALUES} values.")
            model = registry().find(each.model_name, each.model_version)
            with _counting_failures(model, start):
                document, some = _answered(model, each, own, _predicted, start)
            parts += some
        except ApiError as error:
            document = {"model_name": each.model_name, "model_version": each.model_version}
            document |= {"error": str(error), "status": int(error.status), **error.members}
        responses.append(document)
    return _response({"responses": responses}, parts)


def _binary_size(asked: tensors.InferenceRequest) -> int:
    parameters = (tensor.parameters for tensor in asked.inputs)
    return sum(each.binary_data_size or 0 for each in parameters if each)


def _predicted(model: Model, rows: Rows) -> Computed:
    return model.predict(rows), {}


def _explained(model: Model, rows: Rows) -> Computed:
    most = model.predictor.explained_rows
    if len(rows) > most:
        raise TooLarge(f"At most {most} rows per request can be explained, not {len(rows)}.")
    with _turns.take():
        explanation = model.explain(rows)
    outputs = {
        "contributions": explanation.contributions,
        "base": explanation.base,
        "features": np.array(model.names, dtype=np.str_),
        "probability": model.predict(rows)["probability"],
    }
    return outputs, {"method": explanation.method, "scale": explanation.scale}


def _one(model: Model, compute: Callable[[Model, Rows], Computed]) -> Response:
    start = perf_counter_ns()
    with _counting_failures(model, start):
        return _response(*_answered(model, *_body(tensors.REQUEST), compute, start))


def _body(decoder: Decoder) -> tuple[Any, memoryview]:
    """The request in the body, and its binary part. Raises BadInput."""
    if "sent" in g:
        sent: Sent = g.sent
    else:
        sent = Sent(request_body(*MEDIA_TYPES), request.headers.get(LENGTH))
    return tensors.read_request(sent.body, sent.json_length, decoder)


@contextmanager
def _counting_failures(model: Model, start: int) -> Iterator[None]:
    try:
        yield
    except ApiError:
        statistics().failed(model.ref, start)
        raise


def _answered(
    model: Model,
    asked: tensors.InferenceRequest,
    binary: memoryview,
    compute: Callable[[Model, Rows], Computed],
    start: int,
) -> tuple[dict[str, Any], list[bytes]]:
    """The response as a document, and its binary parts. start: when the request began, in ns."""
    rows = tensors.read_rows(asked, binary, model.names)
    require(rows, model)
    read = perf_counter_ns()
    outputs, parameters = compute(model, rows)
    computed = perf_counter_ns()
    document: dict[str, Any] = {
        "model_name": model.ref.model,
        "model_version": model.ref.version,
    }
    if asked.id is not None:
        document["id"] = asked.id
    if parameters:
        document["parameters"] = parameters
    document["outputs"], parts = tensors.write_outputs(outputs, asked)
    statistics().succeeded(model.ref, len(rows), (start, read, computed, perf_counter_ns()))
    return document, parts


def _response(document: dict[str, Any], parts: list[bytes]) -> Response:
    head = msgspec.json.encode(document)
    if not parts:
        return Response(head, content_type="application/json")
    return Response(
        b"".join([head, *parts]),
        content_type="application/octet-stream",
        headers={LENGTH: str(len(head))},
    )
