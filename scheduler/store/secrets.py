"""Secrets as they are stored: encrypted before they get here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from scheduler.store.database import Database, Executor
from scheduler.store.pages import Page
from scheduler.wire.secrets import Secret

if TYPE_CHECKING:
    from scheduler.store.envelope import MasterKeys, Sealed  # takes long to import; only who has keys needs it

_AT_ONCE = 100


class Secrets:
    """Reads on any connection; writes inside the caller's transaction. All methods raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, namespace: str, after: str | None, limit: int) -> Page[Secret]:
        """Return secrets by name, without their values."""
        rows = await self._database.fetch("list_secrets", namespace, after or "", limit + 1)
        items = [Secret(**dict(row)) for row in rows[:limit]]
        return Page(items, items[-1].name if len(rows) > limit else None)

    async def lock(self, executor: Executor, namespace: str, name: str) -> int | None:
        """Return a secret's version, and keep it at that until the transaction ends; None if there is none."""
        version: int | None = await executor.fetchval("lock_secret", namespace, name)
        return version

    async def put(
        self, executor: Executor, keys: MasterKeys, namespace: str, name: str, value: str, actor: str
    ) -> Secret | None:
        """Encrypt and store a value as a secret's next version; None if another request did so at the same time."""
        present = await self.lock(executor, namespace, name)
        sealed = keys.seal(namespace, name, (present or 0) + 1, value)
        row = await executor.fetchrow(
            "insert_secret" if present is None else "replace_secret",
            namespace,
            name,
            sealed.version,
            sealed.key_id,
            sealed.wrapped_key,
            sealed.ciphertext,
            actor,
        )
        return None if row is None else Secret(**dict(row))

    async def delete(self, executor: Executor, namespace: str, name: str) -> None:
        """Delete a secret."""
        await executor.execute("delete_secret", namespace, name)

    async def users(self, executor: Executor, namespace: str, name: str) -> list[str]:
        """Return the names of (at most ten) recurring tasks and workflows that use a secret."""
        return [row["name"] for row in await executor.fetch("secret_users", namespace, name)]

    async def sealed(self, namespace: str, names: Iterable[str]) -> dict[str, Sealed]:
        """Return those of the secrets that exist, encrypted, by name."""
        from scheduler.store.envelope import Sealed  # noqa: PLC0415 - takes long to import

        rows = await self._database.fetch("sealed_secrets", namespace, sorted(set(names)))
        return {row["name"]: Sealed(**dict(row)) for row in rows}

    async def missing(self, namespace: str, names: Iterable[str]) -> set[str]:
        """Return those of the names that no secret bears."""
        wanted = set(names)
        rows = await self._database.fetch("sealed_secrets", namespace, sorted(wanted))
        return wanted - {row["name"] for row in rows}

    async def rewrap_some(self, executor: Executor, keys: MasterKeys) -> list[Sealed]:
        """Wrap the keys of some secrets with the current master key; return these, none when all are.

        Raises Unopenable.
        """
        from scheduler.store.envelope import Sealed  # noqa: PLC0415 - takes long to import

        rows = await executor.fetch("secrets_under_other_keys", keys.current, _AT_ONCE)
        done = [keys.rewrap(Sealed(**dict(row))) for row in rows]
        for sealed in done:
            await executor.execute(
                "rewrap_secret", sealed.namespace, sealed.name, sealed.version, sealed.key_id, sealed.wrapped_key
            )
        return done
