"""Recurring tasks that are due, and the writing of what was decided about their planned fires.

A batch is one statement, fenced by the term. Each task in it is guarded by its version, by the number of runs it has
ever had and by the fire it was read with, so an edit, a trigger or a pause that came between leaves that task for the
next round. So does one that is under way: whoever stops in the middle of it must not stop what everybody else has
planned. A fire can be decided once: (task, scheduled_for) is unique.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.run import TERMINAL, RunState
from scheduler.domain.task import Condition, TaskSpec, decode_spec
from scheduler.domain.term import TermLost
from scheduler.store.calendars import Calendars
from scheduler.store.database import Database, Executor
from scheduler.store.edges import EdgeState
from scheduler.store.execution import NIL_UUID, Settled, settle_onward
from scheduler.store.terms import fenced

_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)
_NONE = Settled([], 0)


class ActiveRun(msgspec.Struct, frozen=True, gc=False):
    """A run of the task that has not ended."""

    id: UUID
    state: RunState
    scheduled_for: datetime | None


class DueTask(msgspec.Struct, frozen=True, gc=False):
    """A recurring task whose next fire has come, as it was read; `now` is PostgreSQL's time."""

    id: UUID
    namespace: str
    name: str
    version: int
    spec: TaskSpec
    occurrences: int
    fire_cursor: datetime | None
    next_fire_at: datetime
    created_at: datetime
    now: datetime
    active: Sequence[ActiveRun]


class UnreadableTask(msgspec.Struct, frozen=True, gc=False):
    """A recurring task that is due, but whose definition is none."""

    id: UUID
    version: int
    error: str


class Upstream(msgspec.Struct, frozen=True, gc=False):
    """A task that another depends on by definition. One-off tasks have no cursor, but the run `run_id`.

    `spec` is None where this release cannot read it.
    """

    id: UUID
    name: str
    recurring: bool
    spec: TaskSpec | None
    fire_cursor: datetime | None
    created_at: datetime
    deleted: bool
    run_id: UUID | None


class PlannedEdge(msgspec.Struct, frozen=True, gc=False):
    """A dependency of a new run: on a run, or on a fire that may not have been decided yet."""

    position: int
    upstream_task_id: UUID
    upstream_run_id: UUID | None
    upstream_fire: datetime | None
    condition: Condition
    state: EdgeState = "waiting"


class PlannedRun(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A run that a fire makes: `queued` (nothing blocks it and its window has room), `pending` or `skipped`."""

    id: UUID
    queue: str
    lane: str
    priority: int
    state: RunState
    reason: str | None = None
    scheduled_for: datetime
    run_at: datetime
    start_within: float | None = None
    unmet: int = 0
    max_attempts: int = 1
    gate: str | None = None
    edges: Sequence[PlannedEdge] | None = None


class PlannedFire(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What became of one planned fire, or of a stretch of `count` up to `until`."""

    scheduled_for: datetime
    disposition: str
    run_id: UUID | None = None
    until: datetime | None = None
    count: int = 1


class Plan(msgspec.Struct, frozen=True, gc=False):
    """All that is to be written for one due task. `cancel`: its active runs give way."""

    task: DueTask
    cursor: datetime
    next_fire_at: datetime | None
    fires: Sequence[PlannedFire]
    runs: Sequence[PlannedRun]
    cancel: bool = False


class Cancelled(msgspec.Struct, frozen=True):
    """What making way came to: workers to tell (run, worker), and dependents that moved."""

    requested: list[tuple[UUID, UUID]]
    settled: Settled


_encode = msgspec.json.Encoder().encode
_active = msgspec.json.Decoder(list[ActiveRun])


class Schedules:
    """All methods raise StoreUnavailable, those with `epoch` TermLost once it has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.calendars = Calendars(database)

    async def due(self, limit: int, later: Mapping[UUID, int]) -> tuple[list[DueTask], list[UnreadableTask]]:
        """Return tasks that are due, the longest due first; versions of tasks in `later` are passed over."""
        due: list[DueTask] = []
        unreadable: list[UnreadableTask] = []
        for row in await self._database.fetch("due_tasks", list(later), list(later.values()), limit):
            try:
                due.append(_due(row))
            except ValueError as error:
                unreadable.append(UnreadableTask(row["id"], row["version"], str(error)))
        return due, unreadable

    async def next_fire(self, later: Mapping[UUID, int]) -> float | None:
        """Return seconds until the next task is due (zero or less: already), None if none is; passes over `later`."""
        seconds: float | None = await self._database.fetchval("next_fire", list(later), list(later.values()))
        return seconds

    async def upstreams(self, ids: Sequence[UUID]) -> dict[UUID, Upstream]:
        """Return the tasks that others depend on, deleted ones too."""
        return {
            row["id"]: Upstream(
                row["id"],
                row["name"],
                row["recurring"],
                _spec_if_readable(row),
                row["fire_cursor"],
                row["created_at"],
                row["deleted"],
                row["run_id"],
            )
            for row in await self._database.fetch("planned_upstreams", list(ids))
        }

    async def newest_fires(self, wanted: Sequence[tuple[UUID, datetime]]) -> Mapping[tuple[UUID, datetime], datetime]:
        """Return, for (task, moment), its newest fire at or before that moment that was decided."""
        rows = await self._database.fetch("newest_fires", [w[0] for w in wanted], [w[1] for w in wanted])
        return {(row["task_id"], row["at"]): min(row["until"] or row["scheduled_for"], row["at"]) for row in rows}

    async def write(self, epoch: int, plans: Sequence[Plan]) -> set[UUID]:
        """Write plans whose active runs need not give way; return the tasks that nobody had touched meanwhile."""
        return await self._write(self._database, epoch, plans)

    async def write_and_cancel(self, epoch: int, plans: Sequence[Plan], reason: str) -> tuple[set[UUID], Cancelled]:
        """Write plans, and cancel the runs that were active when they were made, all in one transaction.

        A plan is left for the next round where somebody holds such a run.
        """
        requested: list[tuple[UUID, UUID]] = []
        rows = []
        async with fenced(self._database, epoch) as executor:
            yielding = {run.id for plan in plans for run in plan.task.active}
            locked = {row["id"] for row in await executor.fetch("lock_yielding_runs", sorted(yielding))}
            plans = [plan for plan in plans if locked.issuperset(run.id for run in plan.task.active)]
            written = await self._write(executor, epoch, plans)
            for plan in plans:
                if plan.cancel and plan.task.id in written:
                    active = sorted(run.id for run in plan.task.active)
                    rows += await executor.fetch("cancel_runs", active, plan.task.namespace, [], reason, None)
            requested = [(row["run_id"], row["worker_id"]) for row in rows if row["kind"] == "requested"]
            settled = await settle_onward(executor, rows, ())
        return written, Cancelled(requested, settled)

    async def _write(self, executor: Executor, epoch: int, plans: Sequence[Plan]) -> set[UUID]:
        plans = sorted(plans, key=lambda plan: plan.task.id)
        row = await executor.fetchrow(
            "write_fires",
            epoch,
            [plan.task.id for plan in plans],
            [plan.task.version for plan in plans],
            [plan.task.occurrences for plan in plans],
            [plan.task.next_fire_at for plan in plans],
            [plan.cursor for plan in plans],
            [plan.next_fire_at for plan in plans],
            [len(plan.runs) for plan in plans],
            [_encode(plan.fires) for plan in plans],
            [_encode(plan.runs) for plan in plans],
        )
        if row is None or not row["led"]:
            raise TermLost(f"epoch {epoch} has ended")
        return set(row["tasks"])

    async def decided_fires(self, plans: Sequence[Plan]) -> set[tuple[UUID, datetime]]:
        """Return which of the plans' fires were decided before: what a refused batch stumbled over."""
        wanted = [(plan.task.id, fire.scheduled_for) for plan in plans for fire in plan.fires]
        rows = await self._database.fetch("upstream_fires", [w[0] for w in wanted], [w[1] for w in wanted])
        return {(row["task_id"], row["scheduled_for"]) for row in rows}

    async def settle_written(self, epoch: int, upstream_run_ids: Sequence[UUID]) -> Settled:
        """Settle new edges whose upstream ended while they were being written."""
        if not upstream_run_ids:
            return _NONE
        async with fenced(self._database, epoch) as executor:
            return await _settle_ended(executor, upstream_run_ids)

    async def bind_edges(self, epoch: int, tasks: Sequence[UUID]) -> Settled:
        """Bind the edges that wait for fires of these tasks, as far as those are decided."""
        return await self._bind(epoch, await self._database.fetch("fire_edges_of_tasks", list(tasks)))

    async def bind_page(
        self, epoch: int, *, after: tuple[UUID, datetime] | None, limit: int
    ) -> tuple[Settled, tuple[UUID, datetime] | None]:
        """Do the same for a page of all such edges; also return where the next page begins, None at the end."""
        rows = await self._database.fetch("fire_edges_page", *(after or (NIL_UUID, _BEGINNING)), limit)
        more = (rows[-1]["upstream_task_id"], rows[-1]["upstream_fire"]) if len(rows) == limit else None
        return await self._bind(epoch, rows), more

    async def _bind(self, epoch: int, rows: Sequence[Mapping[str, object]]) -> Settled:
        ripe = [row for row in rows if row["ripe"]]
        if not ripe:
            return _NONE
        async with fenced(self._database, epoch) as executor:
            hopeless = await executor.fetch(
                "bind_edges",
                [row["run_id"] for row in ripe],
                [row["position"] for row in ripe],
                [row["upstream_run_id"] for row in ripe],
            )
            settled = _NONE
            if hopeless:
                moved = await executor.fetch(
                    "recount", [row["id"] for row in hopeless], [row["version"] for row in hopeless]
                )
                settled = await settle_onward(executor, moved, ())
            bound = [row["upstream_run_id"] for row in ripe if isinstance(row["upstream_run_id"], UUID)]
            ended = await _settle_ended(executor, bound)
            return Settled([], settled.ready + ended.ready)


def _due(row: Any) -> DueTask:
    return DueTask(
        row["id"],
        row["namespace"],
        row["name"],
        row["version"],
        decode_spec(row["spec"]),
        row["occurrences"],
        row["fire_cursor"],
        row["next_fire_at"],
        row["created_at"],
        row["now"],
        () if row["active"] is None else _active.decode(row["active"]),
    )


def _spec_if_readable(row: Any) -> TaskSpec | None:
    try:
        return decode_spec(row["spec"]) if row["known"] else None
    except ValueError:
        return None


async def _settle_ended(executor: Executor, upstream_run_ids: Sequence[UUID]) -> Settled:
    """Settle edges on those of the runs that have ended; the lock waits for an end that is being written just now."""
    locked = await executor.fetch("lock_upstream_runs", sorted(set(upstream_run_ids)))
    ended = [row["id"] for row in locked if row["state"] in TERMINAL]
    if not ended:
        return _NONE
    return await settle_onward(executor, await executor.fetch("settle", ended, []), ())
