"""The API's certificate, read again when its files change: new connections get the new one, the others go on.

A pair that does not fit, as there is for a moment while files are exchanged, is tried in a context of its own first:
until it fits, the one before stays in use.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from hypercorn.config import Config

from scheduler.health import Health
from scheduler.service import Wake
from scheduler.telemetry import get_logger

_LOOK = 5.0  # seconds
_COMPONENT = "api.certificate"
_log = get_logger("api")


class Certificate:
    """A certificate chain and its key, in PEM files. `wake` and `step` are its loop."""

    def __init__(self, certificate: str, key: str, health: Health) -> None:
        """Read the files. Raises OSError (ssl.SSLError is one) if they cannot be used, or not together."""
        self.wake = Wake()
        self.certificate = certificate
        self.key = key
        self._health = health
        self._contexts: list[ssl.SSLContext] = []
        self._seen = self._state()
        self._try()

    def serve(self, context: ssl.SSLContext) -> None:
        """Keep a context that accepts connections on this certificate, from now on."""
        context.load_cert_chain(self.certificate, self.key)
        self._contexts.append(context)

    async def step(self) -> float | None:
        """Look whether the files have changed."""
        state = self._state()
        if state != self._seen:
            try:
                self._try()
            except OSError as error:
                self._health.report(_COMPONENT, False, f"the one before stays in use: {error}")
                return _LOOK
            for context in self._contexts:
                context.load_cert_chain(self.certificate, self.key)
            self._seen = state
            _log.info("certificate read again", certificate=self.certificate)
        self._health.report(_COMPONENT, True, "")
        return _LOOK

    def _try(self) -> None:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)

    def _state(self) -> list[tuple[int, int, int]]:
        try:
            stats = [Path(path).stat() for path in (self.certificate, self.key)]
        except OSError:
            return []
        return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]


class TlsConfig(Config):
    """Hypercorn's configuration, with a certificate that may change."""

    def __init__(self, certificate: Certificate | None) -> None:
        super().__init__()
        self._certificate = certificate
        if certificate is not None:
            self.certfile, self.keyfile = certificate.certificate, certificate.key

    def create_ssl_context(self) -> ssl.SSLContext | None:
        """Return the context of all connections, which we go on to keep up to date."""
        context = super().create_ssl_context()
        if context is not None and self._certificate is not None:
            self._certificate.serve(context)
        return context
