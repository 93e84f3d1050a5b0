"""GET /health, and the model API as the tool speaks it: /api/model."""

from http import HTTPStatus

import msgspec
from flask import Blueprint, Response, current_app, request

from modelapi.api_errors import ApiError, BadInput, WrongMediaType, problem
from modelapi.registry import Registry
from modelapi.repository import Model
from modelapi.rows import read_rows

blueprint = Blueprint("model", __name__)


def registry() -> Registry:
    """The registry of the application in whose request this is called."""
    found: Registry = current_app.extensions["registry"]
    return found


def answer(document: object, status: int = HTTPStatus.OK) -> Response:
    """A JSON response; NaN becomes null."""
    return Response(msgspec.json.encode(document), status, content_type="application/json")


@blueprint.get("/health")
def health() -> Response:
    """200 while a champion is served."""
    try:
        champion = registry().serving.champion.ref
    except ApiError as error:
        return problem(error.status, str(error))
    return answer({"status": "ok", "model": champion.model, "version": champion.version})


@blueprint.get("/api/model")
def declaration() -> Response:
    """Champion and shadows with the features they need."""
    serving = registry().serving
    response = Response(serving.declaration, content_type="application/json")
    response.set_etag(serving.etag)
    response.headers["Cache-Control"] = "no-cache"
    return response.make_conditional(request)


@blueprint.post("/api/model")
def predict() -> Response:
    """Predict one row or a list of rows."""
    if request.mimetype not in ("", "application/json"):
        raise WrongMediaType(
            f"Content-Type must be application/json, not {request.mimetype}."
        )
    model = _asked_for()
    rows, many = read_rows(request.get_data(cache=False), model)
    outputs = model.predict(rows)
    names = {"model": model.ref.model, "version": model.ref.version}
    columns = [(name, values.tolist()) for name, values in outputs.items()]
    keys = [name for name, _ in columns]
    predictions = [
        dict(zip(keys, row, strict=True)) | names
        for row in zip(*(values for _, values in columns), strict=True)
    ]
    return answer(predictions if many else predictions[0])


def _asked_for() -> Model:
    name, version = request.args.get("model"), request.args.get("version")
    if name is None:
        if version is not None:
            raise BadInput("says nothing without model", "version")
        return registry().serving.champion
    return registry().find(name, version)
