"""Checkpoints of running attempts, for the next attempt on whatever machine."""

from __future__ import annotations

from uuid import UUID

from scheduler.store.database import Database

MAX_CHECKPOINT = 1024 * 1024
"""Bytes of one checkpoint at most."""


class Checkpoints:
    """One checkpoint per run. All methods raise StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, run_id: UUID) -> bytes | None:
        """Return the run's checkpoint, None if there is none."""
        data: bytes | None = await self._database.fetchval("load_checkpoint", run_id)
        return data

    async def save(self, run_id: UUID, fence: int, data: bytes) -> bool:
        """Store a checkpoint of at most MAX_CHECKPOINT bytes; False if the fence is no longer the run's."""
        return await self._database.fetchval("save_checkpoint", run_id, fence, data) is not None
