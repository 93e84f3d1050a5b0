"""Asks for a bearer token, by the same key as the model API, as soon as a key is set."""

from pathlib import Path

import jwt
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from wire.tokens import Key, read_key, subject_of

# Inside the pipeline's own network; nginx does not pass them on.
OPEN = {"/health", "/metrics", "/sub", "/fhir/metadata"}


def required(path: str) -> Middleware:
    """Returns middleware that answers 401 without a valid token; without a key, it lets all pass.

    path: the key's file, or empty. Raises TokenKeyError for an unusable key.
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
            actor = subject_of(request.headers.get("Authorization"), key, algorithm)
        except jwt.InvalidTokenError as error:
            raise web.HTTPUnauthorized(
                text=f"{error}", headers={"WWW-Authenticate": "Bearer"}
            ) from None
        request["actor"] = actor
        return await handler(request)

    return check
