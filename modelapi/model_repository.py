"""The Open Inference Protocol's extension for the model repository."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar, cast

import msgspec
from flask import Blueprint, Response, g, request

from modelapi import champion
from modelapi.api_errors import BadInput, Conflict, Forbidden, InsufficientScope, NotServing
from modelapi.artifact import ArtifactError, Ref
from modelapi.content import as_utf8, decode, request_body
from modelapi.endpoints import answer, registry
from modelapi.limits import SMALL_BODY

Shape = TypeVar("Shape")

# A request with one of these headers comes from a browser or through a proxy.
PASSED_ON = (
    *("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via"),
    *("Origin", "Sec-Fetch-Site"),
)

blueprint = Blueprint("model_repository", __name__, url_prefix="/v2/repository")


class IndexRequest(msgspec.Struct):
    """The request to list the repository. ready: list only versions that are served."""

    ready: bool = False


@blueprint.post("/index")
def index() -> Response:
    """Lists all versions in the repository, with the reason for each version that is not served."""
    asked = _read(IndexRequest)
    listed = []
    for ref in registry().repository.refs():
        try:
            registry().find(ref.model, ref.version)
            state, reason = "READY", ""
        except NotServing as error:
            state, reason = "UNAVAILABLE", str(error)
        if state == "READY" or not asked.ready:
            listed.append(
                {"name": ref.model, "version": ref.version, "state": state, "reason": reason}
            )
    return answer(listed)


class RepositoryRequest(msgspec.Struct):
    """The request to load or unload a model. Loading rejects the parameters `config` and `file:…`;
    all others are ignored."""

    parameters: dict[str, Any] | None = None


@blueprint.post("/models/<name>/load")
def load(name: str) -> Response:
    """Verifies all versions of a model again and serves their current files."""
    _require_right_to_change()
    for parameter in _read(RepositoryRequest).parameters or ():
        if parameter == "config" or parameter.startswith("file:"):
            raise BadInput(
                "is not accepted: models can only be loaded from the repository", parameter
            )
    for version in registry().versions(name):
        try:
            registry().repository.load(Ref(name, version))
        except ArtifactError as error:
            raise NotServing(str(error)) from None
    return _change("load", name, lambda state: champion.load(state, name))


@blueprint.post("/models/<name>/unload")
def unload(name: str) -> Response:
    """Stops serving a model; answers 409 for a model in use."""
    _require_right_to_change()
    _read(RepositoryRequest)
    registry().versions(name)
    return _change("unload", name, lambda state: champion.unload(state, name))


def _require_right_to_change() -> None:
    """Requires a token with the scope admin or, on a server without tokens, a request that does not
    come through a proxy or from a web page.
    """
    if "token" in g:
        if "admin" not in g.token.scopes:
            raise InsufficientScope("admin")
    elif any(mark in request.headers for mark in PASSED_ON):
        raise Forbidden("A server without tokens rejects this request from a page or a proxy.")


def _change(
    action: str, name: str, transition: Callable[[champion.State], champion.State]
) -> Response:
    actor = g.token.subject if "token" in g else request.remote_addr or "unknown"
    try:
        registry().states.change(action, name, actor, transition)
    except champion.StateError as error:
        raise Conflict(f"{error}.") from None
    registry().refresh()
    return Response(status=HTTPStatus.OK)


def _read(shape: type[Shape]) -> Shape:
    """The JSON body; an empty body means an empty object. Raises BadInput and the errors of
    `request_body`."""
    request.max_content_length = SMALL_BODY
    body = request_body("application/json")
    try:
        return cast(Shape, decode(as_utf8(body) or b"{}", msgspec.json.Decoder(shape)))
    except msgspec.ValidationError as error:
        raise BadInput(str(error)) from None
