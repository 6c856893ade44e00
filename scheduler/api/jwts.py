"""JSON Web Tokens of another issuer: whose they are, and what they allow.

A token must name us (`aud`) and the one issuer that we trust (`iss`), say from when (`nbf`) and until when (`exp`) it
holds, and who it is for (`sub`). It is verified by the algorithm of the key that it names, whatever it says itself.
What it allows stands in three claims, whose names are configured: a role, further permissions, and namespaces.
"""

from __future__ import annotations

from typing import Any, get_args

import jwt
import msgspec
from jwt.exceptions import PyJWTError

from scheduler.api.credentials import Ended
from scheduler.api.jwks import KeySource
from scheduler.api.settings import JwtSettings
from scheduler.domain.access import (
    DEFAULT_NAMESPACE,
    EVERY_NAMESPACE,
    PERMISSIONS,
    Permission,
    Principal,
    Role,
    granted,
)
from scheduler.domain.clock import Clock
from scheduler.domain.errors import Unauthenticated

_ROLES: tuple[Role, ...] = get_args(Role)
_LONGEST_NAME = 200


class _Claims(msgspec.Struct):
    sub: str
    exp: float
    nbf: float
    jti: str = ""


class Jwts:
    """Verifies tokens."""

    def __init__(self, settings: JwtSettings, keys: KeySource, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock

    async def verify(self, text: str) -> Principal:
        """Return who shows the token. Raises Unauthenticated, or Overloaded while no keys could be read."""
        try:
            header = jwt.get_unverified_header(text)
        except PyJWTError:
            raise Unauthenticated("this is no JWT") from None
        name = header.get("kid")
        key = await self._keys.find(name if isinstance(name, str) else None)
        if key is None or header.get("alg") != key.algorithm or "crit" in header:
            # Who signed it is not known, or it asks for another algorithm than its key is for: `none`, for example, or
            # HS256 with a published RSA key as the secret.
            raise Unauthenticated("the token names no key that is known here, or not the algorithm of that key")
        try:
            claims = jwt.decode(
                text,
                key.key,
                algorithms=[key.algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                # What time it is, our own clock says, below.
                options={
                    "require": ["exp", "nbf", "iss", "aud", "sub"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            held = msgspec.convert(claims, _Claims)
        except (PyJWTError, msgspec.ValidationError) as error:
            raise Unauthenticated(f"the token does not hold: {str(error)[:200]}") from None
        now = self._clock.now().timestamp()
        if held.nbf - self._settings.leeway > now:
            raise Unauthenticated("the token does not hold yet")
        until = held.exp + self._settings.leeway
        if not until > now:  # also for what is no number
            raise Ended("the token has expired")
        if not (held.sub.isprintable() and 0 < len(held.sub) <= _LONGEST_NAME):
            raise Unauthenticated(f"the token's sub must have 1 to {_LONGEST_NAME} printable characters")
        return self._principal(held, claims, until)

    def _principal(self, held: _Claims, claims: dict[str, Any], until: float) -> Principal:
        settings = self._settings
        role = claims.get(settings.role_claim)
        names = _texts(claims.get(settings.namespaces_claim, DEFAULT_NAMESPACE))
        own = None if EVERY_NAMESPACE in names else frozenset(names)
        wanted = _texts(claims.get(settings.permissions_claim, []))
        permissions: list[Permission] = [permission for permission in PERMISSIONS if permission in wanted]
        return Principal(
            name=f"jwt:{held.sub}",
            kind="jwt",
            id=held.jti[:_LONGEST_NAME],
            permissions=granted(role if role in _ROLES else None, permissions, own),
            namespaces=own,
            until=until,
        )


def _texts(claim: object) -> frozenset[str]:
    """Return a claim that is a list, or text with spaces between (as `scope` is), as a set."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    return frozenset(item for item in claim if isinstance(item, str)) if isinstance(claim, list) else frozenset()
