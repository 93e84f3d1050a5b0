"""The application factory."""

import logging

from flask import Flask
from pythonjsonlogger.json import JsonFormatter

from modelapi import (
    api_errors,
    browsers,
    content,
    endpoints,
    inference_protocol,
    metrics_endpoint,
    openapi,
    tokens,
)
from modelapi.champion import StateFile
from modelapi.registry import Registry
from modelapi.repository import Repository
from modelapi.settings import JSON_LINES, Settings
from modelapi.statistics import Statistics

BODY_LIMIT = 32 * 1024 * 1024


def create_app(config: Settings | None = None, counts: Statistics | None = None) -> Flask:
    """The model API as a WSGI application, its champion loaded, counting in `counts`.

    A model that cannot be served is no error here: /health says so until it can.
    Raises ValueError for an unusable token key.
    """
    settings = config or Settings()
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    states = StateFile(settings.model_state, settings.models / "default.json")
    registry = Registry(Repository(settings.models), states)
    app.extensions["registry"] = registry
    app.extensions["statistics"] = counts or Statistics()
    api_errors.register(app)
    metrics_endpoint.register(app)  # before tokens, so that a refused request is counted too
    browsers.register(app)
    content.register(app)
    if settings.token_key_file is not None:
        tokens.register(app, settings.token_key_file)
    app.register_blueprint(endpoints.blueprint)
    app.register_blueprint(inference_protocol.blueprint)
    app.register_blueprint(openapi.blueprint)
    registry.refresh()
    return app


def log_to_stderr(level: str, form: str = "text") -> None:
    """One line an event, for the programs that run the application; `form`: text or json."""
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(JsonFormatter(**JSON_LINES))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s modelapi %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
