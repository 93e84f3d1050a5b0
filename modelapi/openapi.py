"""/openapi.json and /docs: what the API takes and gives, for programs and for people.

openapi.json holds all but two things that are added here: the champion's features, and
the paths that name a model's version.
"""

import copy
import functools
import json
from pathlib import Path
from typing import Any

from flask import Blueprint, render_template

from modelapi.api_errors import NotServing, Unauthorized
from modelapi.endpoints import answer, registry
from modelapi.repository import Model

blueprint = Blueprint("openapi", __name__, template_folder="templates")

Document = dict[str, Any]


@functools.cache
def _base() -> Document:
    document: Document = json.loads((Path(__file__).parent / "openapi.json").read_text("utf-8"))
    versioned = {}
    for path, item in document["paths"].items():
        versioned[path] = item
        if path.startswith("/v2/models/{model}"):
            versioned[path.replace("{model}", "{model}/versions/{version}")] = _versioned(item)
    return document | {"paths": versioned}


def _versioned(item: Document) -> Document:
    item = copy.deepcopy(item)
    item["parameters"].append({"$ref": "#/components/parameters/Version"})
    for method in item.keys() - {"parameters"}:
        item[method]["operationId"] += "OfVersion"
        item[method]["summary"] = f"The same, of one version: {item[method]['summary']}"
    return item


def document(champion: Model | None) -> Document:
    """The OpenAPI document while `champion` is in use."""
    described = copy.deepcopy(_base())
    if champion is not None:
        described["components"]["schemas"]["Row"] = _row(champion)
    return described


def _row(model: Model) -> Document:
    properties: Document = {}
    for feature in model.manifest.features:
        kind: Document = {"type": "number" if feature.required else ["number", "null"]}
        unit = {"description": feature.unit} if feature.unit else {}
        properties[feature.name] = kind | unit
    return {
        "description": f"The features of {model.ref}, the champion; null where missing.",
        "type": "object",
        "properties": properties,
        "required": list(model.names),
        "additionalProperties": False,
    }


def _champion() -> Model | None:
    try:
        return registry().serving.champion
    except NotServing:
        return None


@blueprint.get("/openapi.json")
def for_programs() -> Any:
    return answer(document(_champion()))


@blueprint.get("/docs")
def for_people() -> str:
    champion = _champion()
    described = document(champion)
    return render_template(
        "docs.html",
        document=described,
        sections=_sections(described),
        champion=champion.manifest if champion else None,
        example=champion.example if champion else None,
        token_errors=Unauthorized.__subclasses__(),
    )


def _sections(described: Document) -> dict[str, list[Document]]:
    """The operations under their tags, references resolved."""
    sections: dict[str, list[Document]] = {tag["name"]: [] for tag in described["tags"]}
    for path, item in described["paths"].items():
        for method in ("get", "post"):
            if method in item and "{version}" not in path:
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
