"""Errors as RFC 9457 problem details, with an additional member `error`, which clients of the Open
Inference Protocol expect.
"""

import logging
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

log = logging.getLogger("modelapi")


class ApiError(Exception):
    """Base class of errors that become a problem document."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.members = members


class BadInput(ApiError):
    """The input has a wrong shape or value; names the field, and the row of a list."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, detail: str, field: str | None = None, row: int | None = None) -> None:
        where = [f"row {row}"] * (row is not None) + [field or ""] * (field is not None)
        members = {"field": field, "row": row}
        super().__init__(
            ": ".join([*where, detail]), **{k: v for k, v in members.items() if v is not None}
        )


class UnknownModel(ApiError):
    """There is no such model or version."""

    status = HTTPStatus.NOT_FOUND


class WrongMediaType(ApiError):
    """The Content-Type is not one that the route accepts."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class TooLarge(ApiError):
    """The request is too large."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class NotServing(ApiError):
    """The model exists but cannot be served; the text is the reason."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class Conflict(ApiError):
    """The request would unload a model that is in use."""

    status = HTTPStatus.CONFLICT


class Forbidden(ApiError):
    """The request is not allowed from this origin."""

    status = HTTPStatus.FORBIDDEN


class Unauthorized(ApiError):
    """Base class: the request has no valid token. Each kind has its own name and message."""

    status = HTTPStatus.UNAUTHORIZED
    message = ""

    def __init__(self) -> None:
        name = type(self).__name__
        super().__init__(self.message, type=f"/docs#{name}", title=name)


class NoAuthorizationError(Unauthorized):
    """The request has no token."""

    message = "Missing Authorization Header"


class InvalidSignatureError(Unauthorized):
    """The token was not signed with this server's key."""

    message = "Signature verification failed"


class ExpiredSignatureError(Unauthorized):
    """The token has expired."""

    message = "Signature has expired"


class WrongTokenError(Unauthorized):
    """The token is not of the kind that this server accepts."""

    message = "Only access tokens are allowed"


def problem(status: int, detail: str, **members: Any) -> Response:
    """A response with a problem document."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "error": detail,
    }
    return Response(
        msgspec.json.encode(document | members), status, content_type="application/problem+json"
    )


def register(app: Flask) -> None:
    """Makes the application answer every error with a problem document."""

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        response = problem(error.status, str(error), **error.members)
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = problem(error.code or 500, _sentence(error))
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            # The rest of the body is not read, so the connection cannot be reused.
            response.headers["Connection"] = "close"
        return response

    @app.errorhandler(Exception)
    def fault(error: Exception) -> Response:
        log.exception("%s %s failed", request.method, request.path)
        return problem(500, "Internal error of the server; see its log.")


def _sentence(error: HTTPException) -> str:
    if error.code == HTTPStatus.NOT_FOUND:
        return f"There is no {request.path}; /docs lists all paths."
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{request.method} is not a method of {request.path}."
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = request.max_content_length or 0
        return f"The body is larger than {limit} bytes; send fewer rows per request."
    return error.description or HTTPStatus(error.code or 500).phrase
