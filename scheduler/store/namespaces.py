"""Namespaces: what there is, and what each may have."""

from __future__ import annotations

from scheduler.store.database import Database, Executor
from scheduler.store.queues import COUNTING
from scheduler.wire.access import Namespace, NewNamespace, Quotas


class Namespaces:
    """All methods raise StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Namespace]:
        """Return every namespace, by name."""
        return [Namespace(**dict(row)) for row in await self._database.fetch("list_namespaces")]

    async def create(self, executor: Executor, new: NewNamespace, actor: str) -> Namespace | None:
        """Make a namespace; None if the name is, or once was, in use."""
        row = await executor.fetchrow(
            "insert_namespace", new.name, new.max_pending, new.max_tasks, new.submit_rate, actor
        )
        return None if row is None else Namespace(**dict(row))

    async def set_quotas(self, executor: Executor, name: str, quotas: Quotas, actor: str) -> Namespace | None:
        """Change what a namespace may have; None if there is no such one."""
        row = await executor.fetchrow(
            "set_quotas", name, quotas.max_pending, quotas.max_tasks, quotas.submit_rate, actor
        )
        return None if row is None else Namespace(**dict(row))

    async def delete(self, executor: Executor, name: str, actor: str) -> str | None:
        """Delete a namespace that holds nothing; return what it holds otherwise, None if it is gone.

        Raises LookupError if there is no such one.
        """
        if await executor.fetchval("lock_namespace", name) is None:
            raise LookupError(name)
        use = await executor.fetchrow("namespace_in_use", name)
        assert use is not None, "the statement always returns a row"
        if use["tasks"] or use["runs"]:
            return "recurring tasks" if use["tasks"] else "runs that have not ended"
        await executor.execute("delete_namespace", name, actor)
        return None

    async def recurring(self, name: str, at_most: int) -> int:
        """Return how many recurring tasks a namespace has, counting no further than `at_most`."""
        count: int = await self._database.fetchval("count_recurring", name, at_most)
        return count

    async def waiting(self, name: str, at_most: int) -> int:
        """Return how many of a namespace's runs wait, counting no further than about `at_most`."""
        async with self._database.patient(COUNTING) as executor:
            count: int = await executor.fetchval("count_waiting_in_namespace", name, at_most)
        return count
