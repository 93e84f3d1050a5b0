"""Tests HL7 over TLS, with and without certificates of senders."""

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.mllp import wrap
from tests.support.gateway import code, gateway, oru
from tests.support.hl7_corpus import obx


class Pair(NamedTuple):
    """The paths of a certificate and of its key."""

    certificate: Path
    key: Path


def pair(folder: Path, name: str) -> Pair:
    """Writes a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


async def answer(port: int, server: Pair, client: Pair | None) -> str:
    """Returns MSA-1, or an empty text if the gateway closes the connection without an answer."""
    context = ssl.create_default_context(cafile=str(server.certificate))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.write(wrap(oru(obx())))
        found = await asyncio.wait_for(reader.readuntil(b"\x1c\r"), 20)
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return ""
    writer.close()
    return code(found[1:-2])


def test_a_sender_is_answered_over_tls(tmp_path: Path) -> None:
    server = pair(tmp_path, "server")

    async def run() -> str:
        tls = {"MLLP_TLS_CERT": str(server.certificate), "MLLP_TLS_KEY": str(server.key)}
        async with gateway(tmp_path / "log", **tls) as running:
            return await answer(running.mllp, server, None)

    assert asyncio.run(run()) == "AA"


def test_if_a_ca_is_set_only_senders_that_it_certified_are_answered(tmp_path: Path) -> None:
    server, known, unknown = (pair(tmp_path, name) for name in ("server", "known", "unknown"))

    async def run() -> list[str]:
        tls = {
            "MLLP_TLS_CERT": str(server.certificate),
            "MLLP_TLS_KEY": str(server.key),
            "MLLP_TLS_CA": str(known.certificate),
        }
        async with gateway(tmp_path / "log", **tls) as running:
            return [await answer(running.mllp, server, who) for who in (known, unknown, None)]

    assert asyncio.run(run()) == ["AA", "", ""]
