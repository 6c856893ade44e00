"""Queues and workers as the API shows them, who leads, and how much waits."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import msgspec

from scheduler.store.database import Database
from scheduler.wire.fleet import Leader, Queue, Worker
from scheduler.wire.report import LeaderReport

COUNTED = 10_000
"""Runs of one lane and state are counted no further than this."""

COUNTING = 120.0
"""Seconds that counting all that waits may take: many times what it takes for as many runs as may wait."""


class Queues:
    """Pauses queues and reads what there is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def queues(self, namespace: str) -> list[Queue]:
        """Return every queue that work was ever put in, or that was ever paused."""
        rows = await self._database.fetch("list_queues", namespace, COUNTED)
        return [Queue(**dict(row)) for row in rows]

    async def set_paused(self, namespace: str, name: str, actor: str, *, paused: bool) -> list[str]:
        """Pause or resume a queue, known or not yet; return its lanes."""
        async with self._database.transaction() as executor:
            await executor.execute("pause_queue" if paused else "resume_queue", namespace, name, actor)
            rows = await executor.fetch("lanes_of_queue", namespace, name)
        return [row["lane"] for row in rows]

    async def workers(self, namespaces: Collection[str] | None) -> list[Worker]:
        """Return the workers that are there, and those that went in the last hour.

        `running` counts runs of these namespaces only, unless they are None.
        """
        rows = await self._database.fetch("list_workers", None if namespaces is None else sorted(namespaces))
        return [
            Worker(**{**row, "labels": msgspec.json.decode(row["labels"], type=dict[str, str])})
            for row in map(dict, rows)
        ]

    async def request_drain(self, worker_id: UUID) -> str | None:
        """Ask a worker to take nothing more, finish, and leave; return its state, None if there is no such worker."""
        state: str | None = await self._database.fetchval("request_drain", worker_id)
        return state

    async def live_workers(self) -> int:
        """Return how many workers take work."""
        count: int = await self._database.fetchval("count_live_workers")
        return count

    async def leader(self) -> Leader:
        """Return who leads, or led last."""
        row = await self._database.fetchrow("leader")
        assert row is not None, "the leadership row is part of the schema"
        return Leader(**dict(row))

    async def leader_report(self) -> tuple[LeaderReport, float] | None:
        """Return what the leader has said of itself in its term, and how many seconds ago; None if nothing yet."""
        row = await self._database.fetchrow("leader_report")
        return None if row is None else (msgspec.json.decode(row["report"], type=LeaderReport), row["age"])

    async def waiting_at_most(self) -> int:
        """Return what no number of waiting runs could exceed: about twice as many as wait, or as once did.

        Takes a millisecond, however many there are.
        """
        bound: int = await self._database.fetchval("waiting_at_most")
        return bound

    async def waiting(self, at_most: int) -> int:
        """Return how many runs wait, counting no further than about `at_most`."""
        async with self._database.patient(COUNTING) as executor:
            count: int = await executor.fetchval("count_waiting", at_most)
        return count
