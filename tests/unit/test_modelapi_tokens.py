"""Tests bearer tokens: accepted requests, and the errors of rejected requests."""

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flask.testing import FlaskClient

from modelapi.server import create_app
from modelapi.settings import Settings
from tests.support.modelapi_server import ROW, command, copy_models

SECRET = "a secret of at least thirty-two bytes"  # noqa: S105


class Keys:
    """The key file of a server, and the key that signs tokens for the server."""

    def __init__(self, folder: Path, algorithm: str) -> None:
        self.algorithm = algorithm
        self.file = folder / "key"
        self.signing = folder / "signing"
        if algorithm == "HS256":
            for path in (self.file, self.signing):
                path.write_text(SECRET + "\n")
            self.private: Any = SECRET
            return
        self.private = (
            rsa.generate_private_key(65537, 2048)
            if algorithm == "RS256"
            else ec.generate_private_key(ec.SECP256R1())
        )
        self.file.write_bytes(
            self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        self.signing.write_bytes(
            self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )


@pytest.fixture(params=["HS256", "RS256", "ES256"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Keys:
    return Keys(tmp_path, request.param)


def serve(folder: Path, key: Path) -> FlaskClient:
    models = copy_models(folder / "models", "formula")
    return create_app(Settings(models, folder / "s.sqlite", token_key_file=key)).test_client()


@pytest.fixture
def client(keys: Keys, tmp_path: Path) -> FlaskClient:
    return serve(tmp_path, keys.file)


def call(client: FlaskClient, authorization: str | None) -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    return client.post("/api/model", json=ROW, headers=headers)


def refused(client: FlaskClient, authorization: str | None, name: str, message: str) -> None:
    answer = call(client, authorization)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.content_type == "application/problem+json"
    assert (answer.json["title"], answer.json["error"]) == (name, message)


def claims(**changes: Any) -> dict[str, Any]:
    return {"sub": "tool", "exp": time.time() + 60, "scope": "infer admin", **changes}


def test_a_valid_token_is_accepted(client: FlaskClient, keys: Keys) -> None:
    token = jwt.encode(claims(), keys.private, keys.algorithm)
    assert call(client, f"Bearer {token}").status_code == 200
    assert call(client, f"bearer {token}").status_code == 200


def test_the_printed_token_is_accepted(client: FlaskClient, keys: Keys, tmp_path: Path) -> None:
    code, token, _ = command(
        tmp_path / "models",
        tmp_path / "s",
        *("token", "--key", str(keys.signing), "--days", "1", "--scope", "admin"),
    )
    assert code == 0
    assert call(client, f"Bearer {token.strip()}").status_code == 200
    payload = jwt.decode(token.strip(), options={"verify_signature": False})
    assert payload["exp"] - payload["iat"] == 86_400
    # The history names the subject of the token.
    answer = client.post(
        "/v2/repository/models/formula/load", headers={"Authorization": f"Bearer {token.strip()}"}
    )
    assert answer.status_code == 200
    _, history, _ = command(tmp_path / "models", tmp_path / "s.sqlite", "history")
    assert history.split("\t")[1:] == ["tool", "load", "formula\n"]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpw", "x"])
def test_a_missing_token_is_reported(client: FlaskClient, header: str | None) -> None:
    refused(client, header, "NoAuthorizationError", "Missing Authorization Header")


def test_an_expired_token_is_reported(client: FlaskClient, keys: Keys) -> None:
    token = jwt.encode(claims(exp=time.time() - 1), keys.private, keys.algorithm)
    refused(client, f"Bearer {token}", "ExpiredSignatureError", "Signature has expired")


def test_a_token_that_is_signed_with_another_key_is_reported(
    client: FlaskClient, keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Keys(tmp_path / "foreign", keys.algorithm)
    private = "another " * 8 if keys.algorithm == "HS256" else foreign.private
    token = jwt.encode(claims(), private, keys.algorithm)
    refused(client, f"Bearer {token}", "InvalidSignatureError", "Signature verification failed")


def part(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def test_tokens_that_are_not_access_tokens_are_reported(client: FlaskClient, keys: Keys) -> None:
    unsigned = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims(exp=2**31))}."
    others = [alg for alg in ("HS384", "RS384", "ES256") if alg[:2] == keys.algorithm[:2]]
    without_expiry = jwt.encode({"sub": "tool"}, keys.private, keys.algorithm)
    addressed = jwt.encode(claims(aud="elsewhere"), keys.private, keys.algorithm)
    early = jwt.encode(claims(nbf=time.time() + 50), keys.private, keys.algorithm)
    tokens = [unsigned, "x.y.z", "abc", without_expiry, addressed, early]
    if keys.algorithm in ("HS256", "RS256"):
        secret = SECRET * 2 if keys.algorithm == "HS256" else keys.private
        tokens.append(jwt.encode(claims(), secret, others[0]))
    for token in tokens:
        refused(client, f"Bearer {token}", "WrongTokenError", "Only access tokens are allowed")


@pytest.mark.parametrize("keys", ["RS256", "ES256"], indirect=True)
def test_a_token_signed_with_the_public_key_as_a_secret_is_rejected(
    client: FlaskClient, keys: Keys
) -> None:
    """A known attack signs a token with HS256, with the text of the public key as the secret."""
    head, body = part({"alg": "HS256", "typ": "JWT"}), part(claims())
    mac = hmac.digest(keys.file.read_bytes(), f"{head}.{body}".encode(), "sha256")
    token = f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    refused(client, f"Bearer {token}", "WrongTokenError", "Only access tokens are allowed")


def test_only_health_needs_no_token(client: FlaskClient) -> None:
    assert client.get("/health").status_code == 200
    for path in ("/api/model", "/v2", "/v2/health/live", "/docs", "/openapi.json", "/nothing"):
        assert client.get(path).status_code == 401
    assert client.post("/v2/repository/index").status_code == 401


@pytest.mark.parametrize("action", ["load", "unload"])
@pytest.mark.parametrize(
    "said",
    [
        {"X-Forwarded-For": "192.0.2.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Real-IP": "192.0.2.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://localhost"},
    ],
)
def test_without_tokens_models_are_not_changed_from_outside(
    tmp_path: Path, action: str, said: dict[str, str]
) -> None:
    """Models can be changed by a direct request, but not through a proxy or by a web page."""
    models = copy_models(tmp_path / "models", "formula", "qsofa")
    path = f"/v2/repository/models/qsofa/{action}"
    client = create_app(Settings(models, tmp_path / "s.sqlite")).test_client()
    answer = client.post(path, headers=said)
    assert (answer.status_code, answer.content_type) == (403, "application/problem+json")
    assert "tokens" in answer.text
    assert client.get("/v2/models/qsofa/ready").status_code == 200
    assert client.post(path).status_code == 200


@pytest.mark.parametrize("action", ["load", "unload"])
def test_a_token_changes_models_from_outside(tmp_path: Path, keys: Keys, action: str) -> None:
    models = copy_models(tmp_path / "models", "formula", "qsofa")
    client = create_app(
        Settings(models, tmp_path / "s.sqlite", token_key_file=keys.file)
    ).test_client()
    token = jwt.encode(claims(), keys.private, keys.algorithm)
    answer = client.post(
        f"/v2/repository/models/qsofa/{action}",
        headers={"X-Forwarded-For": "192.0.2.1", "Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("scope", "infers", "changes"),
    [
        ("infer", 200, 403),
        ("admin", 200, 200),
        ("admin infer", 200, 200),
        (None, 200, 403),
        ("openid profile", 403, 403),
        ("", 403, 403),
        (["admin"], 403, 403),
        ("administrator", 403, 403),
    ],
)
def test_a_scope_permits_only_its_routes(
    tmp_path: Path, scope: Any, infers: int, changes: int
) -> None:
    (tmp_path / "key").write_text(SECRET)
    client = serve(tmp_path, tmp_path / "key")
    held = claims() if scope is None else claims(scope=scope)
    if scope is None:
        del held["scope"]
    headers = {"Authorization": f"Bearer {jwt.encode(held, SECRET, 'HS256')}"}
    routes = {
        ("POST", "/api/model"): infers,
        ("GET", "/api/model"): infers,
        ("POST", "/v2/repository/index"): infers,
        ("POST", "/v2/repository/models/formula/load"): changes,
        ("POST", "/v2/repository/models/nobody/unload"): changes if changes == 403 else 404,
    }
    for (method, path), status in routes.items():
        answer = client.open(
            path, method=method, json=ROW if "api" in path else None, headers=headers
        )
        assert answer.status_code == status
        if status == 403:
            assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


def test_the_printed_token_may_only_infer_by_default(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    printed = ("token", "--key", str(tmp_path / "key"))
    for arguments, scope in (((), "infer"), (("--scope", "admin"), "admin")):
        _, token, _ = command(tmp_path, tmp_path / "s", *printed, *arguments)
        assert jwt.decode(token.strip(), SECRET, ["HS256"])["scope"] == scope


def test_without_a_key_no_token_is_required(tmp_path: Path) -> None:
    models = copy_models(tmp_path / "models", "formula")
    client = create_app(Settings(models, tmp_path / "s.sqlite")).test_client()
    assert call(client, None).status_code == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"short", "at least 32 bytes"),
        (b"-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n", "not a plain public"),
        (
            ec.generate_private_key(ec.SECP384R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "or on the curve P-256",
        ),
        (
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            "not a plain public key",
        ),
    ],
)
def test_an_invalid_key_is_an_error_at_start(tmp_path: Path, content: bytes, words: str) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        serve(tmp_path, key)


def ends_in_a_blank() -> ec.EllipticCurvePrivateKey:
    """Makes a private key whose DER form ends in a space, which strip() would remove."""
    while True:
        key = ec.generate_private_key(ec.SECP256R1())
        if key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).endswith(b" "):
            return key


def public_forms() -> dict[str, bytes]:
    public = ends_in_a_blank().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "byte order mark": b"\xef\xbb\xbf" + pem,
        "UTF-16": pem.decode().encode("utf-16"),
        "comment": b"# the ward's key\n" + pem,
        "OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "private DER": ends_in_a_blank().private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
        ),
        "JWK": jwt.algorithms.ECAlgorithm.to_jwk(public).encode(),
        "JWK set": b'{"keys": []}                                    ',
    }


@pytest.mark.parametrize("form", public_forms())
def test_a_key_in_another_form_is_not_taken_for_a_secret(tmp_path: Path, form: str) -> None:
    (tmp_path / "key").write_bytes(public_forms()[form])
    with pytest.raises(ValueError, match="not in plain PEM"):
        serve(tmp_path, tmp_path / "key")


def test_a_subject_cannot_forge_a_line_of_the_history(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    client = serve(tmp_path, tmp_path / "key")
    forged = claims(sub="tool\n2026\tboss\tpromote\x1b[2J")
    headers = {"Authorization": f"Bearer {jwt.encode(forged, SECRET, 'HS256')}"}
    assert client.post("/v2/repository/models/formula/load", headers=headers).status_code == 200
    _, history, _ = command(tmp_path / "models", tmp_path / "s.sqlite", "history")
    assert history.count("\n") == 1
    assert history.split("\t")[1:] == [
        "tool\\n2026\\tboss\\tpromote\\x1b[2J", "load", "formula\n",
    ]  # fmt: skip
