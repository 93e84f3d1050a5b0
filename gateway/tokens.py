"""Bearer tokens, by the same key as the model API's: asked for as soon as a key is set."""

import jwt
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

# Inside the pipeline's own network; nginx does not pass them on.
OPEN = {"/health", "/metrics", "/sub", "/fhir/metadata"}


def required(secret: str) -> Middleware:
    """Returns middleware that answers 401 without a valid token; with no key, it lets all pass.

    A PEM public key checks RS256 or ES256, any other text is the secret of HS256.
    """
    algorithms = ["RS256", "ES256"] if secret.startswith("-----BEGIN") else ["HS256"]

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not secret or request.path in OPEN:
            return await handler(request)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise jwt.InvalidTokenError("a bearer token is required")
            claims = jwt.decode(token.strip(), secret, algorithms, options={"require": ["exp"]})
        except jwt.InvalidTokenError as error:
            raise web.HTTPUnauthorized(
                text=f"{error}", headers={"WWW-Authenticate": "Bearer"}
            ) from None
        request["actor"] = str(claims.get("sub", "token"))
        return await handler(request)

    return check
