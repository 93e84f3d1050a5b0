"""The application factory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flask import Flask

from modelapi import (
    api_errors,
    browsers,
    content,
    endpoints,
    inference,
    inference_protocol,
    metrics_endpoint,
    model_repository,
    openapi,
    tokens,
)
from modelapi.direct import Direct
from modelapi.limits import BODY
from modelapi.registry import Registry
from modelapi.repository import Repository
from modelapi.settings import Settings
from modelapi.state_table import open_states
from modelapi.statistics import Statistics

# In compose, nginx and Prometheus reach this service under the name `modelapi`.
NAMES = ("localhost", "modelapi")


class Application(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        # Flask would check for each function of each request whether it is a coroutine.
        return func


def create_app(config: Settings | None = None, counts: Statistics | None = None) -> Flask:
    """Returns the model API as a WSGI application, with its champion loaded. counts: the request
    statistics. If the champion cannot be served, this does not raise; /health reports it. Raises
    TokenKeyError for an invalid token key.
    """
    settings = config or Settings()
    app = Application(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY
    registry = Registry(Repository(Path(settings.models)), open_states(settings))
    app.extensions["registry"] = registry
    app.extensions["statistics"] = counts or Statistics()
    api_errors.register(app)
    metrics_endpoint.register(app)  # before tokens, to count all requests
    known = browsers.known_hosts({*NAMES, *settings.allowed_hosts})
    browsers.register(app, known)
    content.register(app)
    if settings.token_key_file:
        tokens.register(app, Path(settings.token_key_file))
    app.register_blueprint(endpoints.blueprint)
    app.register_blueprint(inference_protocol.blueprint)
    app.register_blueprint(inference.blueprint)
    app.register_blueprint(model_repository.blueprint)
    app.register_blueprint(openapi.blueprint)
    registry.refresh()
    if not settings.token_key_file:
        app.wsgi_app = Direct(app, known)  # type: ignore[method-assign]
    return app
