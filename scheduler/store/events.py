"""Events that somebody publishes, and which runs began because of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.schedule import on_event
from scheduler.domain.task import TaskSpec, decode_spec
from scheduler.store.database import Database, Executor
from scheduler.store.pages import LAST_ID, Page
from scheduler.wire.events import BegunRun, PublishedEvent


class Subscriber(msgspec.Struct, frozen=True):
    """A task that runs when an event is published."""

    task_id: UUID
    name: str
    spec: TaskSpec


class Events:
    """Reads on any connection; writes inside the caller's transaction (`executor`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def publish(
        self, executor: Executor, event_id: UUID, namespace: str, name: str, payload: bytes, actor: str
    ) -> PublishedEvent:
        """Store an event that nothing has begun because of yet; `payload` is JSON."""
        at = await executor.fetchval("insert_event", event_id, namespace, name, payload, actor)
        return PublishedEvent(
            id=event_id, name=name, payload=msgspec.Raw(payload), published_at=at, published_by=actor, runs=[]
        )

    async def subscribers(self, executor: Executor, namespace: str, name: str) -> list[Subscriber]:
        """Return the tasks that an event of this name starts, which stay as they are until the transaction ends.

        None is paused.
        """
        rows = await executor.fetch("event_subscribers", namespace, on_event(name))
        return [Subscriber(row["id"], row["name"], decode_spec(row["spec"])) for row in rows]

    async def note_runs(self, executor: Executor, event_id: UUID, begun: Sequence[BegunRun]) -> None:
        """Note what began because of an event."""
        await executor.execute("insert_event_runs", [b.run_id for b in begun], [b.task_id for b in begun], event_id)

    async def page(self, namespace: str, name: str | None, after: UUID | None, limit: int) -> Page[PublishedEvent]:
        """Return events, newest first."""
        if name is None:
            rows = await self._database.fetch("list_events", namespace, after or LAST_ID, limit + 1)
        else:
            rows = await self._database.fetch("list_events_by_name", namespace, after or LAST_ID, limit + 1, name)
        items = [_event(row) for row in rows[:limit]]
        return Page(items, items[-1].id if len(rows) > limit else None)

    async def of_run(self, namespace: str, run_id: UUID) -> PublishedEvent | None:
        """Return the event that a run began with."""
        row = await self._database.fetchrow("event_of_run", run_id, namespace)
        return None if row is None else _event(row)


def _event(row: Any) -> PublishedEvent:
    return PublishedEvent(
        id=row["id"],
        name=row["name"],
        payload=msgspec.Raw(row["payload"]),
        published_at=row["published_at"],
        published_by=row["published_by"],
        runs=[BegunRun(run_id=r, task_id=t) for r, t in zip(row["run_ids"], row["task_ids"], strict=True)],
    )
