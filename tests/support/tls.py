"""Certificates, and a TLS front for servers that have none of their own: both made in the test."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.abc
from anyio.streams.tls import TLSStream
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip

Greet = Callable[[anyio.abc.ByteStream], Awaitable[None]]


class Authority:
    """Signs certificates; its own is in `ca_file`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(_pem(self._sign(self._name, self._key.public_key(), None)))

    def issue(self, name: str, host: str = "localhost") -> tuple[Path, Path]:
        """Write the certificate and the key of a server, and return their files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate, key_file = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        certificate.write_bytes(_pem(self._sign(subject, key.public_key(), host)))
        return certificate, key_file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, host: str | None) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if host is None:
            usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
            builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


async def ask_postgres_for_tls(stream: anyio.abc.ByteStream) -> None:
    """Answer a client's SSLRequest as PostgreSQL does."""
    request = await stream.receive(8)
    assert request == (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
    await stream.send(b"S")


@asynccontextmanager
async def tls_front(
    certificate: Path, key: Path, connect: Callable[[], Awaitable[anyio.abc.ByteStream]], greet: Greet | None = None
) -> AsyncIterator[int]:
    """Accept TLS on a port of localhost, which is yielded, and pass what comes on to a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def pump(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream, scope: anyio.CancelScope) -> None:
        try:
            async for data in source:
                await target.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass
        scope.cancel()

    async def handle(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                if greet is not None:
                    await greet(stream)
                secure = await TLSStream.wrap(stream, server_side=True, ssl_context=context, standard_compatible=False)
            except (ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream, OSError):
                return
            async with await connect() as server, anyio.create_task_group() as group:
                group.start_soon(pump, secure, server, group.cancel_scope)
                group.start_soon(pump, server, secure, group.cancel_scope)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()
