"""Requires a bearer token on every route if a key is configured."""

from pathlib import Path

import jwt
from flask import Flask, g, request

from modelapi.api_errors import (
    ExpiredSignatureError,
    InvalidSignatureError,
    NoAuthorizationError,
    WrongTokenError,
)
from wire.tokens import Key, NoToken, read_key
from wire.tokens import subject_of as subject_of_token

OPEN = {"/health", "/metrics"}


def subject_of(header: str | None, key: Key, algorithm: str) -> str:
    """The subject of a request's Authorization header.

    Raises one of the API's four token errors.
    """
    try:
        return subject_of_token(header, key, algorithm)
    except NoToken:
        raise NoAuthorizationError from None
    except jwt.ExpiredSignatureError:
        raise ExpiredSignatureError from None
    except jwt.InvalidSignatureError:
        raise InvalidSignatureError from None
    except jwt.InvalidTokenError:
        raise WrongTokenError from None


def register(app: Flask, path: Path) -> None:
    """Requires a token on every route except OPEN. Raises TokenKeyError for an invalid key."""
    key, algorithm = read_key(path)

    @app.before_request
    def authorize() -> None:
        if request.path not in OPEN:
            g.actor = subject_of(request.headers.get("Authorization"), key, algorithm)
