"""What has changed since a moment, read from the tables themselves: nothing is written for whoever listens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from scheduler.domain.ids import first_id_at
from scheduler.store.database import Database
from scheduler.wire.events import Change


class Changes:
    """Reads objects that have changed. All methods raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> datetime:
        """Return PostgreSQL's time, which dates every change."""
        moment: datetime = await self._database.fetchval("database_now")
        return moment

    async def runs(self, since: datetime, limit: int) -> list[Change]:
        """Return up to `limit` runs: those that were created, queued or ended since a moment, and all that execute."""
        rows = await self._database.fetch("changed_runs", since, first_id_at(since), limit)
        return [_run(row) for row in rows]

    async def these_runs(self, ids: Iterable[UUID]) -> list[Change]:
        """Return some runs as they are now."""
        return [_run(row) for row in await self._database.fetch("runs_as_they_are", list(ids))]

    async def queued(self, limit: int) -> list[UUID]:
        """Return up to `limit` runs that stand queued."""
        return [row["id"] for row in await self._database.fetch("queued_runs", limit)]

    async def queued_no_longer(self, ids: Sequence[UUID]) -> list[Change]:
        """Return those of some runs, at least one, that do not stand queued."""
        return [_run(row) for row in await self._database.fetch("queued_no_longer", ids, min(ids), max(ids))]

    async def tasks(self, since: datetime, limit: int) -> list[Change]:
        """Return up to `limit` recurring tasks whose definition, pause or existence changed since a moment."""
        return [Change(kind="task", **row) for row in await self._database.fetch("changed_tasks", since, limit)]

    async def fleet(self, since: datetime) -> list[Change]:
        """Return the leader, every worker that is there, and those that went since a moment."""
        changes = [Change(kind="worker", **row) for row in await self._database.fetch("changed_workers", since)]
        leader = await self._database.fetchrow("leader")
        if leader is not None:
            held = leader["holder"] is not None
            changes.append(
                Change(
                    kind="leader",
                    id=leader["holder"],
                    state="leading" if held else "vacant",
                    at=leader["acquired_at"],
                    name=leader["host"],
                    version=leader["epoch"],
                )
            )
        return changes


def _run(row: Any) -> Change:
    return Change(kind="run", **row)
