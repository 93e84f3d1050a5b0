"""The Open Inference Protocol, version 2, over HTTP, with its extensions for binary tensors, model
configuration and statistics, and an additional verb for explanations. `modelapi.model_repository`
implements the model repository extension.
"""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np
from flask import Blueprint, Response, request
from numpy.typing import NDArray

from modelapi import tensors
from modelapi.api_errors import ApiError, TooLarge
from modelapi.artifact import MODEL_FILES, Ref
from modelapi.content import request_body
from modelapi.endpoints import answer, registry, statistics
from modelapi.repository import Model
from modelapi.rows import require
from modelapi.turns import Turns

blueprint = Blueprint("inference_protocol", __name__, url_prefix="/v2")

EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
_turns = Turns(waiting=1)
PLATFORMS = {"sklearn": "sklearn_joblib", "linear": "icu_linear", "scorecard": "icu_scorecard"}


@blueprint.get("")
def server() -> Response:
    """Returns the server metadata."""
    return answer({"name": "icu-stream-modelapi", "version": "2", "extensions": EXTENSIONS})


@blueprint.get("/health/live")
def live() -> Response:
    return answer({"live": True})


@blueprint.get("/health/ready")
def ready() -> Response:
    """Reports ready while a champion is served."""
    _ = registry().serving
    return answer({"ready": True})


@blueprint.get("/models/<name>")
@blueprint.get("/models/<name>/versions/<version>")
def metadata(name: str, version: str | None = None) -> Response:
    """Returns a model's inputs (one FP64 tensor per feature), its outputs and its description."""
    model = registry().find(name, version)
    manifest = model.manifest
    reference = manifest.reference
    return answer(
        {
            "name": name,
            "versions": registry().versions(name) if version is None else [version],
            "platform": PLATFORMS[manifest.kind],
            "inputs": [_described(feature.name, "FP64") for feature in manifest.features],
            "outputs": [_described(output.name, output.datatype) for output in manifest.outputs],
            "parameters": {
                "title": manifest.title,
                "kind": manifest.kind,
                "created": manifest.created,
                "probability": manifest.outputs[0].description,
                "maximum": model.maximum,
                "learned_hours": manifest.learned_hours or None,
                "base_rate": manifest.base_rate,
                "thresholds": manifest.thresholds,
                "limits": manifest.limits,
                "references": {
                    feature.name: feature.reference
                    for feature in manifest.features
                    if feature.reference is not None
                },
                "outcome": {"name": reference.outcome, "hours": reference.hours}
                if reference
                else None,
                "metrics": manifest.metrics,
            },
        }
    )


def _described(name: str, datatype: str) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [-1]}


@blueprint.get("/models/<name>/config")
@blueprint.get("/models/<name>/versions/<version>/config")
def configuration(name: str, version: str | None = None) -> Response:
    """Returns the model configuration (an extension of the protocol)."""
    manifest = registry().find(name, version).manifest
    datatypes = {"FP64": "TYPE_FP64", "INT64": "TYPE_INT64", "BYTES": "TYPE_STRING"}
    return answer(
        {
            "name": name,
            "platform": PLATFORMS[manifest.kind],
            "backend": "icu-stream",
            "max_batch_size": 0,
            "default_model_filename": MODEL_FILES[manifest.kind],
            "input": [
                {"name": feature.name, "data_type": "TYPE_FP64", "dims": [-1]}
                for feature in manifest.features
            ],
            "output": [
                {"name": output.name, "data_type": datatypes[output.datatype], "dims": [-1]}
                for output in manifest.outputs
            ],
        }
    )


@blueprint.get("/models/<name>/ready")
@blueprint.get("/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> Response:
    registry().find(name, version)
    return answer({"name": name, "ready": True})


@blueprint.post("/models/<name>/infer")
@blueprint.post("/models/<name>/versions/<version>/infer")
def infer(name: str, version: str | None = None) -> Response:
    """Returns the outputs for rows of features."""
    return _inference(registry().find(name, version), lambda model, rows: (model.predict(rows), {}))


@blueprint.post("/models/<name>/explain")
@blueprint.post("/models/<name>/versions/<version>/explain")
def explain(name: str, version: str | None = None) -> Response:
    """Returns, for each row, a base and the features' contributions; their sum is the row's value
    on the scale."""
    return _inference(registry().find(name, version), _explained)


def _explained(
    model: Model, rows: NDArray[np.float64]
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
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


def _inference(
    model: Model,
    compute: Callable[[Model, NDArray[np.float64]], tuple[dict[str, NDArray[Any]], dict[str, str]]],
) -> Response:
    start = perf_counter_ns()
    try:
        body = request_body("application/json", "application/octet-stream")
        header = request.headers.get("Inference-Header-Content-Length")
        asked, binary = tensors.read_request(body, header)
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
        content, length = tensors.write_response(document, outputs, asked)
    except ApiError:
        statistics().failed(model.ref, start)
        raise
    statistics().succeeded(model.ref, len(rows), (start, read, computed, perf_counter_ns()))
    if length is None:
        return Response(content, content_type="application/json")
    return Response(
        content,
        content_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(length)},
    )


@blueprint.get("/models/stats")
@blueprint.get("/models/<name>/stats")
@blueprint.get("/models/<name>/versions/<version>/stats")
def model_statistics(name: str | None = None, version: str | None = None) -> Response:
    """Returns the request counts of all workers since the server started."""
    if name is None:
        refs = registry().repository.refs()
    elif version is None:
        refs = [Ref(name, each) for each in registry().versions(name)]
    else:
        refs = [registry().find(name, version).ref]
    return answer({"model_stats": [statistics().read(ref) for ref in refs]})
