"""Serves the API documentation: /openapi.json for programs, /docs for people.

openapi.json has the static part. This module adds the parts that depend on the models: the
champion's row, the paths with a version, and each model's inference requests.
"""

import copy
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, render_template, request

from modelapi.api_errors import NotServing, Unauthorized
from modelapi.browsers import public_host
from modelapi.endpoints import answer, registry
from modelapi.features import Feature
from modelapi.repository import Model

blueprint = Blueprint("openapi", __name__, template_folder="templates")

Document = dict[str, Any]

OF_MODEL = "/v2/models/{model}"
OF_VERSION = OF_MODEL + "/versions/{version}"


@functools.cache
def frame() -> Document:
    """The content of openapi.json in this folder."""
    found: Document = json.loads((Path(__file__).parent / "openapi.json").read_text("utf-8"))
    return found


def document(champion: Model | None, models: Iterable[Model]) -> Document:
    """The OpenAPI document for this champion and these models."""
    described = copy.deepcopy(frame())
    if champion is not None:
        described["components"]["schemas"]["Row"] = _row(champion)
    paths: Document = {}
    for path, item in described["paths"].items():
        verb = path.removeprefix(OF_MODEL)
        if verb in ("/infer", "/explain"):
            for model in models:
                name = OF_MODEL.format(model=model.ref.model)
                version = OF_VERSION.format(model=model.ref.model, version=model.ref.version)
                paths[version + verb] = _of_model(item, model, f".{model.ref.version}")
                if registry().find(model.ref.model) is model:
                    paths[name + verb] = _of_model(item, model, "")
            continue
        paths[path] = item
        if path.startswith(OF_MODEL):
            paths[path.replace(OF_MODEL, OF_VERSION)] = _of_version(item)
    return described | {"paths": paths}


def _of_version(item: Document) -> Document:
    item = copy.deepcopy(item)
    item["parameters"].append({"$ref": "#/components/parameters/Version"})
    item["get"]["operationId"] += "OfVersion"
    return item


def _of_model(item: Document, model: Model, suffix: str) -> Document:
    """The inference operation of one model."""
    operation = copy.deepcopy(item["post"])
    if operation["operationId"] == "infer":
        outputs = [output.name for output in model.manifest.outputs]
    else:
        outputs = ["contributions", "base", "features", "probability"]
    operation["operationId"] += f".{model.ref.model}{suffix}"
    operation["requestBody"]["content"]["application/json"]["schema"] = _request(model, outputs)
    return {"post": operation}


def _row(model: Model) -> Document:
    properties: Document = {}
    for feature in model.manifest.features:
        kind: Document = {"type": "number" if feature.required else ["number", "null"]}
        unit = {"description": feature.unit} if feature.unit else {}
        properties[feature.name] = kind | unit
    return {
        "description": f"The features of {model.ref}, the champion; null if missing.",
        "type": "object",
        "properties": properties,
        "required": list(model.names),
        "additionalProperties": False,
    }


def _request(model: Model, outputs: list[str]) -> Document:
    """The schema of a request for one row. A schema cannot express that tensors of n rows have n
    values.
    """
    tensors = [_tensor(feature) for feature in model.manifest.features]
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": outputs},
            "parameters": _parameters("classification", "shared_memory_region", "binary_data"),
        },
    }
    return {
        "description": (
            "For one row and one output. For n rows, each shape is [n] and each data has n values. "
            "`outputs` may name each output once. Also accepted: one tensor `features` of shape "
            "[n, features], number types other than FP64, and tensors in the binary extension."
        ),
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": _parameters("binary_data_output"),
            "inputs": {
                "type": "array",
                "prefixItems": tensors,
                "items": False,
                "minItems": len(tensors),
                "maxItems": len(tensors),
            },
            "outputs": {"type": ["array", "null"], "items": output, "maxItems": 1},
        },
    }


def _tensor(feature: Feature) -> Document:
    """The schema of a feature's tensor of one row."""
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"const": feature.name},
            "shape": {"const": [1]},
            "datatype": {"const": "FP64"},
            "data": {
                "type": "array",
                "items": {"type": "number" if feature.required else ["number", "null"]},
                "minItems": 1,
                "maxItems": 1,
            },
            "parameters": _parameters("binary_data_size", "shared_memory_region"),
        },
    }


def _parameters(*excluded: str) -> Document:
    return {"type": ["object", "null"], "properties": dict.fromkeys(excluded, False)}


def _champion() -> Model | None:
    try:
        return registry().serving.champion
    except NotServing:
        return None


def _served() -> Iterable[Model]:
    for ref in registry().repository.refs():
        try:
            yield registry().find(ref.model, ref.version)
        except NotServing:
            continue


@blueprint.get("/openapi.json")
def for_programs() -> Response:
    return answer(document(_champion(), list(_served())))


@blueprint.get("/docs")
def for_people() -> str:
    champion = _champion()
    return render_template(
        "docs.html",
        document=frame(),
        sections=_sections(frame()),
        champion=champion.manifest if champion else None,
        example=champion.example if champion else None,
        token_errors=Unauthorized.__subclasses__(),
        address=f"{request.headers.get('X-Forwarded-Proto', request.scheme)}://{public_host()}",
    )


def _sections(described: Document) -> dict[str, list[Document]]:
    """The operations by tag, with the meaning of each status."""
    sections: dict[str, list[Document]] = {tag["name"]: [] for tag in described["tags"]}
    for path, item in described["paths"].items():
        for method in item.keys() & {"get", "post"}:
            operation = item[method]
            answers = {
                status: _resolved(described, response)["description"]
                for status, response in operation["responses"].items()
            }
            sections[operation["tags"][0]].append(
                {"method": method.upper(), "path": path, "answers": answers, **operation}
            )
    return sections


def _resolved(described: Document, node: Document) -> Document:
    if "$ref" not in node:
        return node
    found: Any = described
    for name in node["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    resolved: Document = found
    return resolved
