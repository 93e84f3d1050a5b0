"""The application factory."""

import logging

from flask import Flask

from modelapi import api_errors, endpoints
from modelapi.champion import StateFile
from modelapi.registry import Registry
from modelapi.repository import Repository
from modelapi.settings import Settings

BODY_LIMIT = 32 * 1024 * 1024


def create_app(config: Settings | None = None) -> Flask:
    """The model API as a WSGI application, its champion loaded.

    Raises nothing for a model that cannot be served: /health says so until it can.
    """
    settings = config or Settings()
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    states = StateFile(settings.model_state, settings.models / "default.json")
    registry = Registry(Repository(settings.models), states)
    app.extensions["registry"] = registry
    api_errors.register(app)
    app.register_blueprint(endpoints.blueprint)
    registry.refresh()
    return app


def log_to_stderr(level: str) -> None:
    """One line an event, for the programs that run the application."""
    logging.basicConfig(level=level, format="%(asctime)s modelapi %(levelname)s %(message)s")
