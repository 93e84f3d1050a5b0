"""Requires a bearer token on every route except those in OPEN, if a key is configured."""

from pathlib import Path

import jwt
from flask import Flask, g, request

from modelapi.api_errors import (
    ExpiredSignatureError,
    InsufficientScope,
    InvalidSignatureError,
    NoAuthorizationError,
    WrongTokenError,
)
from wire.tokens import SCOPES, Key, NoToken, Token, read_key, read_token

OPEN = {"/health", "/metrics"}


def token_of(header: str | None, key: Key, algorithm: str) -> Token:
    """The token in a request's Authorization header. Raises a subclass of Unauthorized."""
    try:
        return read_token(header, key, algorithm)
    except NoToken:
        raise NoAuthorizationError from None
    except jwt.ExpiredSignatureError:
        raise ExpiredSignatureError from None
    except jwt.InvalidSignatureError:
        raise InvalidSignatureError from None
    except jwt.InvalidTokenError:
        raise WrongTokenError from None


def register(app: Flask, path: Path) -> None:
    """Checks tokens with the key in a file. Raises TokenKeyError for an invalid key."""
    key, algorithm = read_key(path)

    @app.before_request
    def authorize() -> None:
        if request.path in OPEN:
            return
        g.token = token_of(request.headers.get("Authorization"), key, algorithm)
        if g.token.scopes.isdisjoint(SCOPES):
            raise InsufficientScope("infer")
