"""Errors as JSON: RFC 9457 problem details.

The member `error`, equal to `detail`, is for clients of the Open Inference Protocol.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

log = logging.getLogger("modelapi")


# Longer quotations of a request are shortened.
QUOTED = 300


class ApiError(Exception):
    """The request fails. The response is a problem document with the status of the class."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(_short(detail))
        self.members = members


class BadInput(ApiError):
    """Input of the wrong shape or value. The message names the field and, in a list, the row, if
    they are known."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self, detail: str, field: str | None = None, row: int | None = None) -> None:
        members = {"field": None if field is None else _short(field), "row": row}
        given = {key: value for key, value in members.items() if value is not None}
        where = [f"row {row}"] * (row is not None) + [_short(field or "")] * (field is not None)
        super().__init__(": ".join([*where, detail]), **given)


class UnknownModel(ApiError):
    """There is no such model or version."""

    status = HTTPStatus.NOT_FOUND


class WrongMediaType(ApiError):
    """The route does not accept the body's media type or encoding."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class TooLarge(ApiError):
    """The request is larger than the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class NotServing(ApiError):
    """The model exists but cannot be served; the message is the reason."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class Busy(ApiError):
    """Too many requests of this kind are waiting; a later request may succeed."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers: Mapping[str, str] = {"Retry-After": "2"}


class Conflict(ApiError):
    """The change is not possible, for example because the model is in use."""

    status = HTTPStatus.CONFLICT


class Forbidden(ApiError):
    """The sender may not make this request."""

    status = HTTPStatus.FORBIDDEN


class InsufficientScope(Forbidden):
    """The token is valid, but its scopes do not permit this request."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token needs the scope {scope!r}.")
        self.headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}


class Misdirected(ApiError):
    """The Host header contains a name that does not belong to this service."""

    status = HTTPStatus.MISDIRECTED_REQUEST


class Unauthorized(ApiError):
    """The request has no valid token; each subclass has a name and a message of its own."""

    status = HTTPStatus.UNAUTHORIZED
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}
    message = ""

    def __init__(self) -> None:
        name = type(self).__name__
        super().__init__(self.message, type=f"/docs#{name}", title=name)


class NoAuthorizationError(Unauthorized):
    """The request has no token."""

    message = "Missing Authorization Header"


class InvalidSignatureError(Unauthorized):
    """The token is not signed with this server's key."""

    message = "Signature verification failed"


class ExpiredSignatureError(Unauthorized):
    """The token has expired."""

    message = "Signature has expired"


class WrongTokenError(Unauthorized):
    """The token is malformed, or of a kind that this server does not accept."""

    message = "Only access tokens are allowed"


def problem(status: int, detail: str, **members: Any) -> Response:
    """A problem document as a response."""
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


def problem_of(error: ApiError) -> Response:
    response = problem(error.status, str(error), **error.members)
    response.headers.update(error.headers)
    return response


def register(app: Flask) -> None:
    """Makes the application answer every error with a problem document."""

    app.register_error_handler(ApiError, problem_of)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = problem(error.code or 500, _sentence(error))
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            # The connection is closed, because the rest of the body stays unread.
            response.headers["Connection"] = "close"
        return response

    @app.errorhandler(Exception)
    def fault(error: Exception) -> Response:
        log.exception("%s %s failed", request.method, request.path)
        return problem(500, "Internal error; the server's log has the details.")


def _short(text: str) -> str:
    return text if len(text) <= QUOTED else f"{text[:QUOTED]} …"


def _sentence(error: HTTPException) -> str:
    if error.code == HTTPStatus.NOT_FOUND:
        return _short(f"There is no {request.path}") + "; see /docs."
    if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _short(f"{request.method} is not a method of {request.path}.")
    if error.code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        limit = request.max_content_length or 0
        return f"The body is larger than {limit} bytes; send fewer rows per request."
    return error.description or HTTPStatus(error.code or 500).phrase
