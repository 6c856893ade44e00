"""Operations on secrets, without I/O."""

from __future__ import annotations

import msgspec

from scheduler.client.exchange import Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing
from scheduler.wire.secrets import NewSecret, Secret


def store_secret(name: str, value: str) -> Operation[Secret]:
    """Store a secret, or the next version of one; nobody can read the value back."""
    body = msgspec.json.encode(NewSecret(name=name, value=value))
    return decoded((yield from ask(build("POST", "/api/secrets", body=body))), Secret)


def secrets() -> Listing[Secret]:
    """List secrets by name, without their values."""
    return Listing("/api/secrets", Secret, {})


def delete_secret(name: str) -> Operation[None]:
    """Delete a secret that no recurring task uses."""
    yield from ask(build("DELETE", path_of("api", "secrets", name)))
