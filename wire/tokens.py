"""Makes and checks bearer tokens (RFC 6750, RFC 7519) for the model API and the gateway.

The key file determines the only accepted algorithm: RS256 or ES256 for a public PEM key (RSA or
P-256), HS256 for any other content, which is the secret. A token must have an expiry.
"""

import json
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509 import load_der_x509_certificate

# RFC 7518, 3.2: the key must be at least as long as the hash.
SECRET_BYTES = 32

# The scopes of the model API: infer permits predictions, explanations and descriptions; admin also
# permits loading and unloading models. The gateway accepts a token with any scope.
SCOPES = ("infer", "admin")

# The bytes of a secret, or a key object of `cryptography`. PyJWT's type hints have no common type
# for public and private keys.
Key = Any


class TokenKeyError(ValueError):
    """The key file is invalid."""


class Token(msgspec.Struct, frozen=True):
    """A valid token: its subject, and the scopes that it grants."""

    subject: str
    scopes: frozenset[str]


class NoToken(jwt.InvalidTokenError):
    """The request has no bearer token."""


def read_key(path: Path, private: bool = False) -> tuple[Key, str]:
    """Reads a key and determines its algorithm. private: read a private key, to sign tokens.

    Raises TokenKeyError, with the file's name, if the file is missing or its key cannot be used.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TokenKeyError(f"{path}: {error.strerror}") from None
    content = raw.strip()
    if not content.startswith(b"-----BEGIN"):
        # The unstripped bytes are checked too, because strip() removes the last byte of a DER key
        # if it looks like a line end.
        if _is_key(raw) or _is_key(content):
            raise TokenKeyError(f"{path}: is a key, but not in plain PEM; convert it to PEM")
        if len(content) < SECRET_BYTES:
            raise TokenKeyError(f"{path}: a secret needs at least {SECRET_BYTES} bytes")
        return content, "HS256"
    kind = "private" if private else "public"
    try:
        key = load_pem_private_key(content, None) if private else load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TokenKeyError(f"{path}: is PEM, but not a plain {kind} key") from None
    if isinstance(key, RSAPublicKey | RSAPrivateKey) and key.key_size >= 2048:
        return key, "RS256"
    if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey) and isinstance(
        key.curve, SECP256R1
    ):
        return key, "ES256"
    raise TokenKeyError(f"{path}: the key must be RSA of 2048 bits or more, or on the curve P-256")


def _is_key(content: bytes) -> bool:
    """Whether the content is a key in another form: PEM after a byte order mark or a comment,
    OpenSSH, DER or JWK. If a public key were taken for a secret, anybody could sign tokens.
    """
    plain = content.lstrip(b"\xef\xbb\xbf").replace(b"\0", b"")
    if b"-----BEGIN" in plain or re.match(rb"(ssh-|ecdsa-|sk-|---- BEGIN)", plain):
        return True
    with suppress(ValueError):
        document = json.loads(plain)
        if isinstance(document, dict) and not {"kty", "keys"}.isdisjoint(document):
            return True
    for load in (load_der_public_key, load_der_x509_certificate):
        with suppress(ValueError, UnsupportedAlgorithm):
            load(content)
            return True
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        load_der_private_key(content, None)
        return True
    return False


def make_token(
    key: Key, algorithm: str, subject: str, seconds: float, scopes: Collection[str] = ("infer",)
) -> str:
    """Signs a token for `subject` that expires after `seconds`."""
    now = int(time.time())
    claims = {"sub": subject, "iat": now, "exp": now + int(seconds), "scope": " ".join(scopes)}
    return jwt.encode(claims, key, algorithm)


def read_token(header: str | None, key: Key, algorithm: str) -> Token:
    """Reads and checks the token of an Authorization header.

    A token without the claim `scope` has the scope `infer`; without `sub`, its subject is `token`.

    Raises NoToken if there is no bearer token, and other subclasses of PyJWT's InvalidTokenError
    if the token is invalid.
    """
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NoToken("a bearer token is required")
    if not token.isascii():
        raise jwt.DecodeError("the token is not ASCII")
    claims = jwt.decode(token.strip(), key, [algorithm], options={"require": ["exp"]})
    scopes = str(claims.get("scope", "infer")).split()
    return Token(str(claims.get("sub", "token")), frozenset(scopes))
