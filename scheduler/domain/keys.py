"""API keys as text: `dts_<id>.<secret>`, the id 16 letters and digits, the secret 256 random bits in base64url.

Only the secret's SHA-256 is kept. A password needs a slow, salted hash because it can be guessed; 256 random bits
cannot, and a fast hash keeps every request cheap.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256

PREFIX = "dts_"

_KEY = re.compile(r"dts_([a-z2-7]{16})\.([A-Za-z0-9_-]{43})")


def text_of(identifier: str, secret: str) -> str:
    """Return a key as its owner gets it."""
    return f"{PREFIX}{identifier}.{secret}"


def parse(text: str) -> tuple[str, str] | None:
    """Return (id, secret) of a key's text, None for any other text."""
    match = _KEY.fullmatch(text)
    return (match[1], match[2]) if match else None


def digest(secret: str) -> bytes:
    """Return what is stored of a secret."""
    return sha256(secret.encode()).digest()


def matches(secret: str, stored: bytes) -> bool:
    """Say whether a secret is the one that is stored; takes the same time wherever they differ."""
    return hmac.compare_digest(digest(secret), stored)
