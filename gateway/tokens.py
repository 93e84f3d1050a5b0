"""Requires bearer tokens, like those of the model API, if a key is configured."""

from pathlib import Path

import jwt
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.people import printable
from wire.tokens import Key, read_key, read_token

# Paths that need no token. Of these, nginx exposes only /fhir/metadata, which has no patient data.
OPEN = {"/health", "/metrics", "/sub", "/fhir/metadata"}
# The subject of the request's token.
ACTOR = web.RequestKey("actor", str)


def sender_of(request: web.Request, protocol: str) -> str:
    """The sender: the subject of the bearer token or, without a token, the program's name."""
    agent = request.headers.get("User-Agent", "").split("/")[0]
    # A byte of a header that is not UTF-8 is not a printable character.
    return printable(request.get(ACTOR) or agent) or protocol


def required(path: str) -> Middleware:
    """Middleware that answers 401 to requests without a valid token. Without a key it does nothing.

    path: the key file, or empty. Raises TokenKeyError if the key is invalid.
    """
    key: Key | None = None
    algorithm = ""
    if path:
        key, algorithm = read_key(Path(path))

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if key is None or request.path in OPEN:
            return await handler(request)
        try:
            actor = read_token(request.headers.get("Authorization"), key, algorithm).subject
        except jwt.InvalidTokenError as error:
            raise web.HTTPUnauthorized(
                text=f"{error}", headers={"WWW-Authenticate": "Bearer"}
            ) from None
        request[ACTOR] = actor
        return await handler(request)

    return check
