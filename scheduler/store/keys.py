"""API keys as they are stored: by the hash of their secret, never the secret itself."""

from __future__ import annotations

import base64
import math
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from scheduler.domain.access import EVERY_NAMESPACE, Permission, Principal, Role, granted
from scheduler.domain.keys import digest, text_of
from scheduler.store.database import Database, Executor
from scheduler.store.pages import Page
from scheduler.wire.access import IssuedKey, Key


class StoredKey(Key, kw_only=True, frozen=True):
    """A key with what only the server needs."""

    hash: bytes
    revoked_at: datetime | None

    def principal(self) -> Principal:
        """Return who shows this key."""
        own = None if EVERY_NAMESPACE in self.namespaces else frozenset(self.namespaces)
        return Principal(
            name=f"key:{self.name}",
            kind="key",
            id=self.id,
            permissions=granted(self.role, self.permissions, own),
            namespaces=own,
            until=math.inf if self.expires_at is None else self.expires_at.timestamp(),
        )

    def shown(self) -> Key:
        """Return the key as it is shown."""
        return Key(**{field: getattr(self, field) for field in Key.__struct_fields__})


class Keys:
    """Makes, finds and revokes keys. All methods raise StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        executor: Executor,
        *,
        name: str,
        role: Role | None,
        permissions: Iterable[Permission],
        namespaces: Iterable[str] | None,
        expires_at: datetime | None,
        actor: str,
    ) -> IssuedKey | None:
        """Store a new key and return it with its text, the only time that anybody sees it; None if the name is taken.

        `namespaces` None means every one.
        """
        identifier = base64.b32encode(secrets.token_bytes(10)).decode().lower()
        secret = secrets.token_urlsafe(32)
        row = await executor.fetchrow(
            "insert_key",
            identifier,
            name,
            digest(secret),
            role,
            sorted(set(permissions)),
            None if namespaces is None else sorted(set(namespaces)),
            expires_at,
            actor,
        )
        if row is None:
            return None
        return IssuedKey(**msgspec.structs.asdict(_stored(row).shown()), key=text_of(identifier, secret))

    async def get(self, identifier: str) -> StoredKey | None:
        """Return a key, revoked or not."""
        row = await self._database.fetchrow("get_key", identifier)
        return None if row is None else _stored(row)

    async def page(self, namespaces: Iterable[str] | None, after: str | None, limit: int) -> Page[Key]:
        """Return keys that lie within these namespaces (None: all), by id."""
        rows = await self._database.fetch("list_keys", _within(namespaces), after or "", limit + 1)
        items = [_stored(row).shown() for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def revoke(self, executor: Executor, identifier: str, namespaces: Iterable[str] | None, actor: str) -> bool:
        """End a key that lies within these namespaces; False if there is no such valid one."""
        return await executor.fetchval("revoke_key", identifier, _within(namespaces), actor) is not None

    async def ended(self, identifiers: Iterable[str]) -> list[str]:
        """Return those of the keys that hold no longer."""
        rows = await self._database.fetch("ended_keys", sorted(identifiers))
        return [row["id"] for row in rows]

    async def note_use(self, identifiers: Sequence[str]) -> None:
        """Write down that these keys were used lately."""
        await self._database.execute("note_key_use", sorted(identifiers))

    async def run_token_key(self) -> bytes:
        """Return what signs the tokens of running commands."""
        key: bytes = await self._database.fetchval("run_token_key")
        return key


def _within(namespaces: Iterable[str] | None) -> list[str] | None:
    return None if namespaces is None else sorted(namespaces)


def _stored(row: Any) -> StoredKey:
    fields = dict(row)
    fields["namespaces"] = [EVERY_NAMESPACE] if row["namespaces"] is None else row["namespaces"]
    return StoredKey(**fields)
