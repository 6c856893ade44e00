"""Operations on API keys and namespaces, without I/O."""

from __future__ import annotations

import msgspec

from scheduler.client.exchange import Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing
from scheduler.wire.access import IssuedKey, Key, Namespace, NewKey, NewNamespace, Quotas


def create_key(new: NewKey) -> Operation[IssuedKey]:
    """Make an API key. Its text is in the result and can never be read again."""
    return decoded((yield from ask(build("POST", "/api/keys", body=msgspec.json.encode(new)))), IssuedKey)


def keys() -> Listing[Key]:
    """List the valid keys of the caller's namespaces."""
    return Listing("/api/keys", Key, {})


def revoke_key(identifier: str) -> Operation[None]:
    """End a key."""
    yield from ask(build("DELETE", path_of("api", "keys", identifier)))


def namespaces() -> Listing[Namespace]:
    """List the caller's namespaces."""
    return Listing("/api/namespaces", Namespace, {})


def create_namespace(new: NewNamespace) -> Operation[Namespace]:
    """Make a namespace."""
    return decoded((yield from ask(build("POST", "/api/namespaces", body=msgspec.json.encode(new)))), Namespace)


def set_quotas(name: str, quotas: Quotas) -> Operation[Namespace]:
    """Change what a namespace may have; None is as much as the installation."""
    body = msgspec.json.encode(quotas)
    return decoded((yield from ask(build("PATCH", path_of("api", "namespaces", name), body=body))), Namespace)


def delete_namespace(name: str) -> Operation[None]:
    """Delete a namespace that has neither recurring tasks nor live runs."""
    yield from ask(build("DELETE", path_of("api", "namespaces", name)))
