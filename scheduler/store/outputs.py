"""What commands print, as the worker writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from scheduler.store.database import Database
from scheduler.store.group_commit import GroupCommit

_ALONE = 256 * 1024
"""Bytes from which a write goes by itself: batches are for the many small ones."""


class Piece(Protocol):
    """Bytes of one stream; `position` numbers the first in all that the attempt printed."""

    @property
    def position(self) -> int: ...  # noqa: D102
    @property
    def stream(self) -> str: ...  # noqa: D102
    @property
    def data(self) -> bytes: ...  # noqa: D102


class _Row(msgspec.Struct, frozen=True, gc=False):
    run_id: UUID
    attempt: int
    position: int
    stream: str
    data: bytes


class Outputs:
    """Appends to `output_chunks`. `run` must be running for `append` to return."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes: GroupCommit[list[_Row], None] = GroupCommit(self._flush, max_batch=200)

    async def append(self, run_id: UUID, attempt: int, pieces: Sequence[Piece]) -> None:
        """Store pieces; committed when this returns. Repeating it changes nothing. Raises StoreUnavailable."""
        rows = [_Row(run_id, attempt, piece.position, piece.stream, piece.data) for piece in pieces]
        if sum(len(row.data) for row in rows) >= _ALONE:
            await self._flush([rows])
        elif rows:
            await self._writes.submit(rows)

    async def trim(self, run_id: UUID, attempt: int, oldest_kept: int) -> None:
        """Delete what was printed before byte `oldest_kept`. Raises StoreUnavailable."""
        await self._database.execute("trim_output", run_id, attempt, oldest_kept)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._writes.run()

    async def _flush(self, batch: Sequence[list[_Row]]) -> list[None]:
        rows = sorted((row for rows in batch for row in rows), key=lambda row: (row.run_id, row.attempt, row.position))
        await self._database.execute(
            "append_output",
            [row.run_id for row in rows],
            [row.attempt for row in rows],
            [row.position for row in rows],
            [row.stream for row in rows],
            [row.data for row in rows],
        )
        return [None] * len(batch)
