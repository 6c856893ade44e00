"""Dead letters: runs that spent every budget, kept until somebody replays or discards them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.store.database import Database, Executor
from scheduler.store.edges import write_edges
from scheduler.store.pages import LAST_ID, WALK, Page, page_of
from scheduler.wire.dead_letters import DeadLetter


class DeadLetterFilter(msgspec.Struct, kw_only=True, frozen=True):
    """Which open dead letters; None stands for any. `reason` matches whole, or what stands before its colon."""

    queue: str | None = None
    task_id: UUID | None = None
    reason: str | None = None


class Letter(msgspec.Struct, frozen=True):
    """Whose dead letter it is, and what became of it."""

    run_id: UUID
    task_id: UUID
    state: str


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

    async def find(self, namespace: str, ids: Sequence[UUID]) -> dict[UUID, Letter]:
        """Return those dead letters that exist."""
        rows = await self._database.fetch("dead_letters_by_id", list(ids), namespace)
        return {row["id"]: Letter(row["run_id"], row["task_id"], row["state"]) for row in rows}

    async def hold(
        self, executor: Executor, namespace: str, canaries: Sequence[Letter], rest: Mapping[UUID, Letter]
    ) -> None:
        """Let runs of `rest` (by letter), revived in this transaction, wait until those of the canaries complete."""
        waiting = [letter.run_id for letter in rest.values()]
        await executor.execute("forget_edges", waiting)
        edges = [
            (run_id, position, canary.task_id, canary.run_id, None, "success", "waiting")
            for run_id in waiting
            for position, canary in enumerate(canaries)
        ]
        await write_edges(executor, edges)
        await executor.execute("await_runs", waiting, [len(canaries)] * len(waiting))
        await executor.execute("hold_dead_letters", list(rest), namespace)

    async def discard(self, executor: Executor, namespace: str, ids: Sequence[UUID], actor: str) -> list[UUID]:
        """Close open dead letters for good; return those that were open."""
        rows = await executor.fetch("discard_dead_letters", list(ids), namespace, actor)
        return [row["id"] for row in rows]


def _letter(row: Any) -> DeadLetter:
    fields = dict(row)
    for extra in ("floor", "walked", "position"):
        fields.pop(extra)
    return DeadLetter(**fields)
