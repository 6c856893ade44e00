"""Writing runs for planned fires that have passed, inside the caller's transaction, which has locked the task."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from scheduler.domain.backfill import Decided
from scheduler.domain.gates import gate_name
from scheduler.domain.run import TERMINAL
from scheduler.domain.task import TaskSpec
from scheduler.store.database import Executor

_encode = msgspec.json.Encoder().encode


class BackfilledRun(msgspec.Struct, frozen=True):
    """A run to be made for a fire; `waits_for` are runs of the same task that must end first."""

    id: UUID
    scheduled_for: datetime
    waits_for: Sequence[UUID]


class BackfillWriting(msgspec.Struct, frozen=True, kw_only=True):
    """All that one backfill writes."""

    task_id: UUID
    namespace: str
    actor: str
    spec: TaskSpec
    lane: str
    traceparent: str | None
    runs: Sequence[BackfilledRun]
    remains: Sequence[Decided]


async def decided_about(executor: Executor, task_id: UUID, moments: Sequence[datetime]) -> list[Decided]:
    """Return what was decided about the task's fires at these moments (ascending), and the stretches among them."""
    if not moments:
        return []
    return [Decided(**dict(row)) for row in await executor.fetch("decided_about", task_id, moments)]


async def still_live(executor: Executor, run_ids: Sequence[UUID]) -> list[UUID]:
    """Keep these runs from ending until the transaction does; return those that have not ended already."""
    rows = await executor.fetch("lock_upstream_runs", sorted(run_ids))
    return [row["id"] for row in rows if row["state"] not in TERMINAL]


async def write_backfill(executor: Executor, wanted: BackfillWriting) -> None:
    """Make the runs, each waiting for those it has to wait for, and record them as what became of their fires."""
    spec = wanted.spec
    await executor.execute(
        "write_backfill",
        wanted.task_id,
        _encode([{"id": r.id, "scheduled_for": r.scheduled_for, "unmet": len(r.waits_for)} for r in wanted.runs]),
        _encode(wanted.remains),
        wanted.namespace,
        spec.queue,
        wanted.lane,
        spec.priority,
        spec.schedule_timeout,
        wanted.actor,
        spec.retry.max_attempts,
        wanted.traceparent,
        gate_name(wanted.namespace, spec),
    )
    edges = [(run.id, n, upstream) for run in wanted.runs for n, upstream in enumerate(run.waits_for)]
    if edges:
        count = len(edges)
        await executor.execute(
            "insert_dependencies",
            [edge[0] for edge in edges],
            [edge[1] for edge in edges],
            [wanted.task_id] * count,
            [edge[2] for edge in edges],
            [None] * count,
            ["completion"] * count,
            ["waiting"] * count,
        )
