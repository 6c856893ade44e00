"""Keys and namespaces for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from scheduler.api.settings import ApiSettings
from scheduler.domain.access import Permission, Role
from scheduler.store.database import Database
from scheduler.wire.access import NewNamespace
from tests.roles.api.support import Answer, Client, Requests, running_api


class Caller(Requests):
    """Somebody who sends requests with a key (None: without any)."""

    def __init__(self, api: Client, key: str | None, namespace: str | None = None) -> None:
        self.api = api
        self.key = key
        self.headers = {} if key is None else {"authorization": f"Bearer {key}"}
        if namespace is not None:
            self.headers["dts-namespace"] = namespace

    async def request(self, method: str, target: str, body: Any = None, **kwargs: Any) -> Answer:
        headers = self.headers | kwargs.pop("headers", {})
        return await self.api.request(method, target, body, headers=headers, **kwargs)

    def within(self, namespace: str) -> Caller:
        """The same, about another namespace."""
        return Caller(self.api, self.key, namespace)


class Closed:
    """An API that asks for credentials."""

    def __init__(self, api: Client) -> None:
        self.api = api
        self.anonymous = Caller(api, None)

    async def key(
        self,
        role: Role | None = "admin",
        *,
        permissions: Sequence[Permission] = (),
        namespaces: Sequence[str] | None = None,
        name: str | None = None,
        expires_at: datetime | None = None,
    ) -> Caller:
        """Whoever holds a new key; `namespaces` None is every one."""
        context = self.api.context
        key = await context.keys.create(
            context.database,
            name=name or f"{role} {'+'.join(permissions)} {'+'.join(namespaces or '*')}",
            role=role,
            permissions=permissions,
            namespaces=namespaces,
            expires_at=expires_at,
            actor="test",
        )
        assert key is not None
        return Caller(self.api, key.key)

    async def namespace(self, name: str, **quotas: Any) -> None:
        context = self.api.context
        await context.namespaces.create(context.database, NewNamespace(name=name, **quotas), "test")
        await context.tenancy.step()


@asynccontextmanager
async def closed_api(database: Database, redis_url: str, **settings: Any) -> AsyncIterator[Closed]:
    """An API that asks for credentials."""
    async with running_api(database, redis_url, ApiSettings(**settings)) as api:
        yield Closed(api)
