"""The token of one attempt: signed, so that whoever holds the signing key can tell whose it is without looking it up.

`dtr_<payload>.<signature>`, both base64url: the payload is the run's id, its fence, the second (Unix time) at which the
token expires, and the namespace; the signature is HMAC-SHA256 over the payload.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from uuid import UUID

import msgspec

PREFIX = "dtr_"

_HEAD = struct.Struct(">16sQQ")
_LONGEST = 400


class RunToken(msgspec.Struct, frozen=True):
    """What a token says; `expires` is Unix time in seconds."""

    run_id: UUID
    fence: int
    expires: int
    namespace: str


def sign(key: bytes, token: RunToken) -> str:
    """Return the token's text."""
    payload = _HEAD.pack(token.run_id.bytes, token.fence, token.expires) + token.namespace.encode()
    return f"{PREFIX}{_text(payload)}.{_text(_signature(key, payload))}"


def read(key: bytes, text: str, now: float) -> RunToken | None:
    """Return what the token says, None if it is forged, broken, or has expired. `now` is Unix time."""
    payload_text, dot, signature_text = text.removeprefix(PREFIX).partition(".")
    if not dot or len(text) > _LONGEST:
        return None
    try:
        payload, signature = _bytes(payload_text), _bytes(signature_text)
    except (binascii.Error, ValueError):
        return None
    if not hmac.compare_digest(signature, _signature(key, payload)):
        return None
    run_id, fence, expires = _HEAD.unpack_from(payload)  # its length is right: it was signed
    if expires <= now:
        return None
    return RunToken(UUID(bytes=run_id), fence, expires, payload[_HEAD.size :].decode())


def _signature(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, b"dts run token\x00" + payload, "sha256")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
