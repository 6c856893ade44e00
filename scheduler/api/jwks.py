"""The keys that tokens are verified with: a JWKS file, a JWKS URL, or one shared secret, read again now and then.

Each key is pinned to one algorithm when it is read, by its `alg` or by what kind of key it is; a token cannot choose.
A shared secret is taken from this machine only, never from a URL: what is published cannot be secret.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import msgspec
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from scheduler.api.settings import JwtSettings
from scheduler.domain.clock import Clock
from scheduler.domain.errors import Overloaded
from scheduler.service import Unavailable, Wake
from scheduler.telemetry import get_logger

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA", "HS256")

_DEFAULT_ALGORITHM = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
    ("oct", None): "HS256",
}
_KIND = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "HS256": "oct"}
_RSA_BITS = 2048
_SECRET_BYTES = 32
_LARGEST = 1024 * 1024
_PATIENCE = 10.0  # seconds
_HURRY = 10.0  # seconds between two readings for the sake of a key id that is not known
_SHARED = ""  # the key that tokens without a key id are signed with

_log = get_logger("api.jwks")


class VerificationKey(msgspec.Struct, frozen=True):
    """A key and the one algorithm that it verifies."""

    algorithm: str
    key: PyJWK


class UnusableKey(ValueError):
    """A key that nothing is verified with; says why."""


def pinned(jwk: dict[str, Any], *, published: bool) -> VerificationKey:
    """Return the key with its algorithm. `published`: it came from a URL. Raises UnusableKey."""
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("it is not for signatures")
    algorithm = jwk.get("alg") or _DEFAULT_ALGORITHM.get((str(kind), curve))
    if algorithm not in ALGORITHMS or _KIND[algorithm] != kind:
        raise UnusableKey(f"a {kind} key does not verify {algorithm}; there are {', '.join(ALGORITHMS)}")
    if kind == "oct" and published:
        raise UnusableKey("a shared secret does not come from a URL")
    try:
        key = PyJWK(jwk, algorithm=algorithm)
    except (PyJWTError, ValueError, TypeError) as error:
        raise UnusableKey(str(error)) from None
    if kind == "RSA" and key.key.key_size < _RSA_BITS:
        raise UnusableKey(f"an RSA key needs {_RSA_BITS} bits at least")
    if kind == "oct" and len(key.key) < _SECRET_BYTES:
        raise UnusableKey(f"a shared secret needs {_SECRET_BYTES} bytes at least")
    return VerificationKey(algorithm, key)


def shared_secret(secret: str) -> VerificationKey:
    """Return the key that a secret of our configuration stands for. Raises UnusableKey if it is too short."""
    encoded = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
    return pinned({"kty": "oct", "alg": "HS256", "k": encoded}, published=False)


def read_set(data: bytes, *, published: bool) -> dict[str, VerificationKey]:
    """Return the usable keys of a JWKS by their ids. Raises UnusableKey if the document is none."""
    try:
        documents = msgspec.json.decode(data, type=dict[str, Any])["keys"]
        if not all(isinstance(document, dict) for document in documents):
            raise TypeError
    except (msgspec.DecodeError, KeyError, TypeError):
        raise UnusableKey('it is no JWKS: {"keys": [...]}') from None
    found = {}
    for document in documents:
        name = str(document.get("kid", ""))
        try:
            found[name] = pinned(document, published=published)
        except UnusableKey as error:
            _log.warning("a key of the JWKS is left out", kid=name, reason=str(error))
    return found


class JwksUnavailable(Unavailable):
    """The keys cannot be read now; those that were read before stay."""


class KeySource:
    """The present keys. `wake` and `step` are its loop."""

    def __init__(self, settings: JwtSettings, clock: Clock) -> None:
        self.wake = Wake()
        self._settings = settings
        self._clock = clock
        self._own = {_SHARED: shared_secret(settings.secret)} if settings.secret else {}
        self._keys: dict[str, VerificationKey] = {}
        self._known = False
        """Whether they were ever read."""
        self._lock = anyio.Lock()
        self._read_at = float("-inf")
        """When the last reading ended, however it did."""

    async def find(self, name: str | None) -> VerificationKey | None:
        """Return the key that a token names (None: it names none), reading the keys again if it is not known.

        Raises Overloaded while there is no saying which keys there are, because they could never be read.
        """
        key = self._lookup(name)
        if key is None:
            async with self._lock:  # they may just be being read, for everybody who waits here
                if self._lookup(name) is None and self._clock.monotonic() - self._read_at >= _HURRY:
                    try:
                        await self._read()
                    except JwksUnavailable as error:
                        _log.warning("the keys cannot be read", reason=str(error))
            key = self._lookup(name)
            if key is None and not self._known:
                raise Overloaded("the keys that tokens are verified with could not be read yet", 1.0)
        return key

    def _lookup(self, name: str | None) -> VerificationKey | None:
        if name is not None:
            return self._keys.get(name)
        every = [*self._own.values(), *self._keys.values()]
        return every[0] if len(every) == 1 else self._own.get(_SHARED)

    async def step(self) -> float | None:
        """Read the keys. Raises JwksUnavailable, keeping those there are."""
        async with self._lock:
            await self._read()
        return self._settings.refresh

    async def _read(self) -> None:
        settings = self._settings
        if settings.jwks_file or settings.jwks_url:
            try:
                keys = read_set(await self._fetch(), published=bool(settings.jwks_url))
            except (OSError, httpx2.HTTPError, UnusableKey, TimeoutError) as error:
                raise JwksUnavailable(f"{settings.jwks_url or settings.jwks_file}: {error}") from error
            finally:
                self._read_at = self._clock.monotonic()
            if keys.keys() != self._keys.keys():
                _log.info("keys for tokens", kids=sorted(keys))
            self._keys = keys
        self._known = True

    async def _fetch(self) -> bytes:
        if self._settings.jwks_file:
            return await anyio.to_thread.run_sync(Path(self._settings.jwks_file).read_bytes)
        with anyio.fail_after(_PATIENCE):
            async with (
                httpx2.AsyncClient(follow_redirects=False, timeout=_PATIENCE) as client,
                client.stream("GET", self._settings.jwks_url, headers={"accept": "application/json"}) as response,
            ):
                response.raise_for_status()
                data = b""
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > _LARGEST:
                        raise UnusableKey(f"it has more than {_LARGEST} bytes")
                return data
