"""The endpoints /health and /api/model, which the tool uses."""

from http import HTTPStatus
from time import perf_counter_ns

import msgspec
from flask import Blueprint, Response, current_app, request

from modelapi.api_errors import ApiError, BadInput, problem
from modelapi.content import request_body
from modelapi.registry import Registry
from modelapi.repository import Model
from modelapi.rows import best_match, read_rows, write_rows
from modelapi.statistics import Statistics

blueprint = Blueprint("model", __name__)


def registry() -> Registry:
    """The registry of the current application."""
    found: Registry = current_app.extensions["registry"]
    return found


def statistics() -> Statistics:
    """The statistics of the current application."""
    found: Statistics = current_app.extensions["statistics"]
    return found


def answer(document: object, status: int = HTTPStatus.OK) -> Response:
    """A JSON response; NaN becomes null."""
    return Response(msgspec.json.encode(document), status, content_type="application/json")


@blueprint.get("/health")
def health() -> Response:
    """Answers 200 while a champion is served."""
    try:
        champion = registry().serving.champion.ref
    except ApiError as error:
        return problem(error.status, str(error))
    return answer({"status": "ok", "model": champion.model, "version": champion.version})


@blueprint.get("/api/model")
def declaration() -> Response:
    """Returns the champion and the shadows with their features. With a query, returns only
    the model that the query names."""
    if request.args:
        return answer(registry().declared(_asked_for()))
    serving = registry().serving
    response = Response(serving.declaration, content_type="application/json")
    response.set_etag(serving.etag)
    response.headers["Cache-Control"] = "no-cache"
    response.make_conditional(request)
    return response


@blueprint.post("/api/model")
def predict() -> Response:
    """Predicts for one row or a list of rows. If the request names no model, the champion answers.
    If the rows do not fit the champion, the served model that reads most of the first row's fields
    answers; of several such models, one in use. So programs that send the four features of the
    project's first version get the answer of `formula`.
    """
    start = perf_counter_ns()
    model = _asked_for()
    try:
        body = request_body("application/json")
        try:
            rows, many = read_rows(body, model)
        except BadInput:
            if "model" in request.args:
                raise
            model = best_match(body, [model, *registry().serving.shadows, *registry().idle()])
            rows, many = read_rows(body, model)
        read = perf_counter_ns()
        outputs = model.predict(rows)
        computed = perf_counter_ns()
        response = Response(write_rows(outputs, model, many), content_type="application/json")
    except ApiError:
        statistics().failed(model.ref, start)
        raise
    statistics().succeeded(model.ref, len(rows), (start, read, computed, perf_counter_ns()))
    return response


def _asked_for() -> Model:
    """The model that the query names. Without `model`: the champion, or the given version of the
    champion's model. Raises UnknownModel, NotServing, and BadInput for a query with another
    parameter: the answer to a misspelt one would look right.
    """
    for unknown in sorted(request.args.keys() - {"model", "version"}):
        raise BadInput(
            "is not a parameter of the query; the parameters are model and version", unknown
        )
    name, version = request.args.get("model"), request.args.get("version")
    if name is None:
        champion = registry().serving.champion
        return champion if version is None else registry().find(champion.ref.model, version)
    return registry().find(name, version)
