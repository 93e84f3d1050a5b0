"""The Open Inference Protocol, version 2, over HTTP: metadata, and the extensions for model
configuration and statistics. `modelapi.inference` implements inference, `modelapi.model_repository`
the model repository extension.
"""

from flask import Blueprint, Response

from modelapi.artifact import MODEL_FILES, Ref
from modelapi.endpoints import answer, registry, statistics

blueprint = Blueprint("inference_protocol", __name__, url_prefix="/v2")

EXTENSIONS = ("binary_tensor_data", "model_repository", "model_configuration", "statistics")
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
