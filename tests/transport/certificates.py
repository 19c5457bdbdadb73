"""Certificates of every kind, and servers that present them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def server(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's end of TLS, with this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


def yesterday() -> datetime:
    return datetime.now(UTC) - timedelta(days=1)


@dataclass(frozen=True)
class Authorities:
    """The authority that senders trust here, and what comes from elsewhere."""

    trusted: trustme.CA
    untrusted: trustme.CA
    # A certificate for 127.0.0.1 that nobody vouches for but itself.
    self_signed: ssl.SSLContext

    @classmethod
    def beside(cls, trusted: trustme.CA, folder: Path) -> Authorities:
        return cls(trusted, trustme.CA(), _self_signed(folder / "self-signed.pem"))


def _self_signed(path: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(yesterday())
        .not_valid_after(yesterday() + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context
