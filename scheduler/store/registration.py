"""A worker's own row: its registration, its lease, its leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from scheduler.store.database import Database


class NewWorker(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker announces.

    `containment` says what keeps its tasks together, `version` which release it is, `lease` how many seconds its lease
    lasts.
    """

    id: UUID
    name: str
    host: str
    pid: int
    queues: Sequence[str]
    executors: Sequence[str]
    labels: Mapping[str, str]
    containment: str
    slots: int
    version: str
    lease: float


class Lacking(msgspec.Struct, frozen=True):
    """A run that is the worker's but that it did not name: perhaps the answer to its claim was lost."""

    run_id: UUID
    fence: int
    started_at: datetime


class Renewed(msgspec.Struct, frozen=True):
    """The answer to a renewal. `cancel` and `lost` are fences: to be cancelled, and no longer the worker's."""

    drain_requested: bool
    cancel: Sequence[int]
    lost: Sequence[int]
    lacking: Sequence[Lacking]


class Registration:
    """Workers as they write about themselves. All methods raise StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, worker: NewWorker) -> None:
        """Add a live worker with a fresh lease."""
        await self._database.execute(
            "register_worker",
            worker.id,
            worker.name,
            worker.host,
            worker.pid,
            list(worker.queues),
            list(worker.executors),
            msgspec.json.encode(worker.labels),
            worker.containment,
            worker.slots,
            worker.version,
            worker.lease,
        )

    async def renew(self, worker_id: UUID, running: int, held: Sequence[int]) -> Renewed | None:
        """Renew the lease; `held` are the fences of all attempts that the worker has not finished.

        None means that this incarnation is dead: its runs are or will be somebody else's, and it never comes back.
        """
        rows = await self._database.fetch("renew_lease", worker_id, running, list(held))
        drain_requested = None
        cancel: list[int] = []
        lost: list[int] = []
        lacking: list[Lacking] = []
        for row in rows:
            kind = row["kind"]
            if kind == "renewed":
                drain_requested = row["drain_requested"]
            elif kind == "cancel":
                cancel.append(row["fence"])
            elif kind == "lost":
                lost.append(row["fence"])
            else:
                lacking.append(Lacking(row["run_id"], row["fence"], row["started_at"]))
        if drain_requested is None:
            return None
        return Renewed(drain_requested, cancel, lost, lacking)

    async def drain(self, worker_id: UUID) -> None:
        """Show that the worker claims no more."""
        await self._database.execute("drain_worker", worker_id)

    async def leave(self, worker_id: UUID, reason: str) -> None:
        """End the incarnation on purpose."""
        await self._database.execute("leave_worker", worker_id, reason)

    async def run_token_key(self) -> bytes:
        """Return what signs the tokens of running commands."""
        key: bytes = await self._database.fetchval("run_token_key")
        return key

    async def live_workers(self) -> int:
        """Return how many workers share the claiming of what Redis does not bring."""
        count: int = await self._database.fetchval("count_live_workers")
        return count
