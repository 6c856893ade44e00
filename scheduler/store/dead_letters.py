"""Dead letters: runs that spent every budget, kept until somebody replays or discards them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.store.database import Database, Executor
from scheduler.store.pages import LAST_ID, WALK, Page, page_of
from scheduler.wire.dead_letters import DeadLetter


class DeadLetterFilter(msgspec.Struct, kw_only=True, frozen=True):
    """Which open dead letters; None stands for any. `reason` matches whole, or what stands before its colon."""

    queue: str | None = None
    task_id: UUID | None = None
    reason: str | None = None


class DeadLetters:
    """Reads and decides dead letters; replaying one revives its run (`Runs.revive`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, namespace: str, wanted: DeadLetterFilter, after: UUID | None, limit: int) -> Page[DeadLetter]:
        """Return open dead letters, newest first."""
        walk = limit + 1 if wanted == DeadLetterFilter() else WALK
        rows = await self._database.fetch(
            "list_dead_letters",
            namespace,
            after or LAST_ID,
            limit + 1,
            walk,
            wanted.queue,
            wanted.task_id,
            wanted.reason,
        )
        return page_of(rows, limit, walk, _letter)

    async def find(self, namespace: str, ids: Sequence[UUID]) -> dict[UUID, tuple[UUID, UUID, str]]:
        """Return (run, task, state) of those dead letters that exist."""
        rows = await self._database.fetch("dead_letters_by_id", list(ids), namespace)
        return {row["id"]: (row["run_id"], row["task_id"], row["state"]) for row in rows}

    async def discard(self, executor: Executor, namespace: str, ids: Sequence[UUID], actor: str) -> list[UUID]:
        """Close open dead letters for good; return those that were open."""
        rows = await executor.fetch("discard_dead_letters", list(ids), namespace, actor)
        return [row["id"] for row in rows]


def _letter(row: Any) -> DeadLetter:
    fields = dict(row)
    for extra in ("floor", "walked", "position"):
        fields.pop(extra)
    return DeadLetter(**fields)
