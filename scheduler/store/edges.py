"""Dependencies between runs, judged against upstreams that are kept still until the edges stand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from scheduler.domain.run import TERMINAL
from scheduler.domain.task import Condition
from scheduler.store.database import Executor

EdgeState = Literal["waiting", "met", "impossible"]


class Edge(msgspec.Struct, frozen=True):
    """One resolved dependency: on a run, or on the fire of a recurring task (`upstream_run_id` is None then)."""

    upstream_task_id: UUID
    upstream_run_id: UUID | None
    upstream_fire: datetime | None
    condition: Condition


def edge_state(condition: Condition, upstream_state: str) -> EdgeState:
    """Say what becomes of an edge whose upstream run is in `upstream_state`.

    The same rule stands in the SQL function `dts_settle_dependents`, for upstreams that end later.
    """
    if upstream_state not in TERMINAL:
        return "waiting"
    held = (
        condition == "completion"
        or (condition == "success" and upstream_state == "completed")
        or (condition == "failure" and upstream_state in {"failed", "dead_letter"})
    )
    return "met" if held else "impossible"


async def judge(
    executor: Executor, edges: Sequence[Edge], *, in_batch: Collection[UUID]
) -> list[tuple[UUID | None, EdgeState]]:
    """Return (upstream run, state) for each edge, in order, inside the caller's transaction.

    Upstream runs are locked FOR SHARE, so none can end between this look and the commit, and one whose end waits for
    the lock finds the edge afterwards.
    A run that is neither in the database nor in `in_batch` comes later in the same batch, and waits.
    """
    fires = await _decided_fires(executor, [edge for edge in edges if edge.upstream_run_id is None])
    bound = [edge.upstream_run_id or fires.get((edge.upstream_task_id, edge.upstream_fire), None) for edge in edges]
    wanted = {run_id for run_id in bound if isinstance(run_id, UUID) and run_id not in in_batch}
    states: dict[UUID, str] = {}
    if wanted:
        states = {row["id"]: row["state"] for row in await executor.fetch("lock_upstream_runs", sorted(wanted))}
    judged: list[tuple[UUID | None, EdgeState]] = []
    for edge, target in zip(edges, bound, strict=True):
        if target == "impossible":
            judged.append((None, "impossible"))
        elif isinstance(target, UUID) and target in states:
            judged.append((target, edge_state(edge.condition, states[target])))
        else:
            judged.append((target if isinstance(target, UUID) else None, "waiting"))
    return judged


async def write_edges(executor: Executor, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert dependencies: (run, position, upstream task, upstream run, upstream fire, condition, state)."""
    if rows:
        await executor.execute("insert_dependencies", *(list(column) for column in zip(*rows, strict=True)))


async def _decided_fires(
    executor: Executor, edges: Sequence[Edge]
) -> dict[tuple[UUID, datetime | None], UUID | Literal["impossible"]]:
    """Return what planned fires became, where that is decided: their run (or the absorbing one), or none ever."""
    if not edges:
        return {}
    tasks = sorted({edge.upstream_task_id for edge in edges})
    await executor.fetch("lock_upstream_tasks", tasks)
    rows = await executor.fetch(
        "upstream_fires", [edge.upstream_task_id for edge in edges], [edge.upstream_fire for edge in edges]
    )
    return {(row["task_id"], row["scheduled_for"]): row["run_id"] or "impossible" for row in rows}
