"""Answers inference requests without Flask's routing, request context and hooks.

For one row, these take a fifth of the time. Only requests that need none of Flask's checks are
answered here; Flask answers all others. Both call the same views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from io import BytesIO
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flask import Flask, g
from werkzeug.exceptions import HTTPException

from modelapi.api_errors import ApiError, problem_of
from modelapi.browsers import from_browser
from modelapi.content import accepts_no_compression, vary
from modelapi.inference import MEDIA_TYPES, Sent
from modelapi.limits import BODY
from modelapi.metrics_endpoint import count

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

ENDPOINTS = {"inference.infer", "inference.infer_all"}


class Direct:
    """The WSGI application around a Flask application that requires no tokens. known: whether a
    Host header is accepted."""

    def __init__(self, app: Flask, known: Callable[[str], bool]) -> None:
        self._app, self._flask, self._known = app, app.wsgi_app, known
        self._routes = app.url_map.bind("localhost")
        self._route = lru_cache(maxsize=64)(self._routed)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun = perf_counter()
        route = self._route(environ["PATH_INFO"]) if self._is_simple(environ) else None
        if route is None:
            return self._flask(environ, start_response)
        endpoint, arguments = route
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        try:
            with self._app.app_context():
                g.sent = Sent(body, environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH"))
                response: Any = self._app.view_functions[endpoint](**arguments)
        except ApiError as error:
            response = problem_of(error)
        except Exception:
            # Flask tries again, and reports the error.
            environ["wsgi.input"] = BytesIO(body)
            return self._flask(environ, start_response)
        vary(response)
        count(endpoint, response, begun)
        answer: Iterable[bytes] = response(environ, start_response)
        return answer

    def _is_simple(self, environ: WSGIEnvironment) -> bool:
        """Whether Flask's checks would accept the request and leave its body and answer as they
        are."""
        return (
            environ["REQUEST_METHOD"] == "POST"
            and environ.get("CONTENT_TYPE") in MEDIA_TYPES
            and environ.get("CONTENT_LENGTH", "").isdecimal()
            and int(environ["CONTENT_LENGTH"]) <= BODY
            and "HTTP_CONTENT_ENCODING" not in environ
            and accepts_no_compression(environ)
            and not from_browser(environ)
            and self._known(environ.get("HTTP_HOST", ""))
        )

    def _routed(self, path: str) -> tuple[str, dict[str, Any]] | None:
        """The endpoint and its arguments, if it is one of ENDPOINTS."""
        if not path.isascii():  # Flask decodes it
            return None
        try:
            endpoint, arguments = self._routes.match(path, "POST")
        except HTTPException:
            return None
        return (endpoint, dict(arguments)) if endpoint in ENDPOINTS else None
