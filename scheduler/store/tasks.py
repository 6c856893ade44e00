"""Tasks: reading, editing, pausing, deleting, triggering. Creating them is `store.intake`'s."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from scheduler.domain.fires import Fire as PlannedFire
from scheduler.domain.gates import gate_name
from scheduler.domain.run import LIVE, TERMINAL, Queued, RunState
from scheduler.domain.task import TaskSpec
from scheduler.store.database import Database, Executor
from scheduler.store.execution import Settled, settle_onward
from scheduler.store.pages import LAST_ID, WALK, Page, page_of
from scheduler.wire.tasks import Fire, LastRun, TaskStatus


class StoredTask(msgspec.Struct, kw_only=True, frozen=True):
    """A task as it is stored; `spec` is the JSON of a TaskSpec without its defaults."""

    id: UUID
    recurring: bool
    namespace: str
    name: str
    spec: bytes
    version: int
    paused: bool
    next_fire_at: datetime | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    last_run: LastRun | None

    @property
    def status(self) -> TaskStatus:
        """The newest run's state; `paused` or `scheduled` for a recurring task between runs."""
        state = self.last_run.state if self.last_run is not None else None
        if not self.recurring or state in LIVE:
            return state or "pending"
        if self.paused:
            return "paused"
        return "scheduled" if self.next_fire_at is not None or state is None else state


class LockedTask(msgspec.Struct, kw_only=True, frozen=True):
    """A task held FOR UPDATE by the transaction that read it."""

    id: UUID
    recurring: bool
    namespace: str
    name: str
    spec: bytes
    version: int
    paused: bool
    next_fire_at: datetime | None
    fire_cursor: datetime | None
    created_at: datetime


class Replan(msgspec.Struct, frozen=True):
    """What an edit does to a task's planned fires: where it goes on (None: where it was), and what it leaves behind."""

    next_fire_at: datetime | None
    fire_cursor: datetime | None = None
    left_behind: PlannedFire | None = None


class Edit(msgspec.Struct, kw_only=True, frozen=True):
    """A new definition of a task at `version`, and what follows from it for its live runs."""

    task_id: UUID
    version: int
    actor: str
    spec: TaskSpec
    spec_json: bytes
    lane: str
    gate: str | None
    run_at: datetime | None
    replan: Replan


class LiveRun(msgspec.Struct, frozen=True):
    """A run that has not ended."""

    id: UUID
    state: RunState
    worker_id: UUID | None


class Upstream(msgspec.Struct, kw_only=True, frozen=True):
    """A task that others want to depend on."""

    id: UUID
    recurring: bool
    name: str
    spec: bytes
    next_fire_at: datetime | None
    run_id: UUID | None
    live_run_id: UUID | None


class Definition(msgspec.Struct, frozen=True):
    """A recurring task and the ids that its `depends_on` holds."""

    id: UUID
    name: str
    upstream: list[UUID]


class NewRun(msgspec.Struct, kw_only=True, frozen=True):
    """A run made by hand. `waits_for` are runs of the same task that must end first."""

    run_id: UUID
    task_id: UUID
    namespace: str
    actor: str
    spec: TaskSpec
    lane: str
    state: Literal["pending", "queued", "skipped"]
    reason: str | None
    waits_for: Sequence[UUID]
    traceparent: str | None


class TaskFilter(msgspec.Struct, kw_only=True, frozen=True):
    """Which tasks to list; None stands for any."""

    status: str | None = None
    queue: str | None = None
    name: str | None = None
    tag: str | None = None


class Tasks:
    """Reads on any connection; writes inside the caller's transaction (`executor`), after `lock`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, task_id: UUID) -> StoredTask | None:
        """Return a task that is not deleted."""
        row = await self._database.fetchrow("get_task", task_id, namespace)
        return _stored(row) if row is not None else None

    async def page(self, namespace: str, wanted: TaskFilter, after: UUID | None, limit: int) -> Page[StoredTask]:
        """Return tasks, newest first; by status, in the order of the runs that give it."""
        statement, extra = _listing(wanted)
        walk = limit + 1 if wanted == TaskFilter() else WALK
        by_run = statement in _LISTED_BY_RUN
        rows = await self._database.fetch(statement, namespace, after or LAST_ID, limit + 1, walk, wanted.queue, *extra)
        return page_of(rows, limit, walk, _stored, key="run_id" if by_run else "id")

    async def fires(self, task_id: UUID, disposition: str | None, before: datetime | None, limit: int) -> Page[Fire]:
        """Return what became of a task's planned fires, latest first; `skipped` stands for every reason to skip."""
        rows = await self._database.fetch("list_fires", task_id, before or _END_OF_TIME, limit + 1, disposition)
        items = [Fire(**dict(row)) for row in rows[:limit]]
        return Page(items, items[-1].scheduled_for if len(rows) > limit else None)

    async def planned_near(self, namespace: str, minutes: Sequence[datetime]) -> list[int]:
        """Return how many of a namespace's tasks fire next within each of these minutes."""
        rows = await self._database.fetch("fires_planned_near", list(minutes), namespace)
        return [row["tasks"] for row in rows]

    # --- dependencies by definition

    async def resolve_names(self, namespace: str, names: Sequence[str]) -> dict[str, list[UUID]]:
        """Return the live tasks of each name: none, one, or two where the name is ambiguous."""
        found: dict[str, list[UUID]] = {}
        for row in await self._database.fetch("resolve_names", namespace, list(names)):
            found.setdefault(row["name"], []).append(row["id"])
        return found

    async def upstreams(self, namespace: str, ids: Sequence[UUID]) -> dict[UUID, Upstream]:
        """Return those of the tasks that exist."""
        rows = await self._database.fetch("upstream_tasks", namespace, list(ids))
        return {row["id"]: Upstream(**dict(row)) for row in rows}

    async def hold_definitions(self, executor: Executor, namespace: str) -> list[Definition]:
        """Return the recurring tasks that depend on others; nobody else edits that until the transaction ends."""
        await executor.execute("hold_dependencies", namespace)
        rows = await executor.fetch("depends_on_of_recurring", namespace)
        return [
            Definition(row["id"], row["name"], [UUID(d["task"]) for d in msgspec.json.decode(row["depends_on"])])
            for row in rows
        ]

    async def dependent_definitions(self, executor: Executor, namespace: str, task_id: UUID) -> dict[UUID, str]:
        """Return recurring tasks (at most ten, id → name) that depend on this one."""
        rows = await executor.fetch("dependent_definitions", str(task_id), namespace, task_id)
        return {row["id"]: row["name"] for row in rows}

    # --- changes

    async def lock(self, executor: Executor, namespace: str, task_id: UUID) -> LockedTask | None:
        """Return a task and keep it as it is until the transaction ends."""
        row = await executor.fetchrow("lock_task", task_id, namespace)
        return LockedTask(**dict(row)) if row is not None else None

    async def edit(self, executor: Executor, edit: Edit) -> list[UUID]:
        """Store a new definition of a locked task; return its live runs, which follow it."""
        spec, missed = edit.spec, edit.replan.left_behind
        if missed is not None:
            await executor.execute(
                "leave_behind", edit.task_id, missed.scheduled_for, missed.disposition, missed.until, missed.count
            )
        await executor.execute(
            "edit_task",
            edit.task_id,
            edit.version,
            edit.spec_json,
            spec.name,
            spec.queue,
            spec.tags,
            edit.actor,
            edit.replan.fire_cursor,
            edit.replan.next_fire_at,
        )
        rows = await executor.fetch(
            "apply_edit",
            edit.task_id,
            spec.queue,
            edit.lane,
            spec.priority,
            spec.retry.max_attempts,
            edit.run_at,
            spec.schedule_timeout,
            edit.gate,
        )
        return [row["id"] for row in rows]

    async def pause(self, executor: Executor, task_id: UUID, actor: str) -> bool:
        """Stop a locked task's fires and hold its waiting runs; False if it was paused already."""
        if await executor.fetchval("pause_task", task_id, actor) is None:
            return False
        await executor.execute("lock_runs_to_unfold", task_id)
        await executor.fetch("hold_runs", task_id)
        return True

    async def resume(self, executor: Executor, task_id: UUID, actor: str) -> bool:
        """Undo `pause`; False if the task was not paused."""
        if await executor.fetchval("resume_task", task_id, actor) is None:
            return False
        await executor.fetch("release_runs", task_id)
        return True

    async def live_runs(self, executor: Executor, task_id: UUID) -> list[LiveRun]:
        """Return the runs of a task that have not ended, newest first."""
        rows = await executor.fetch("live_runs", task_id)
        return [LiveRun(row["id"], row["state"], row["worker_id"]) for row in rows]

    async def waiting_dependents(self, executor: Executor, task_id: UUID) -> list[UUID]:
        """Return the runs of other tasks that wait for this one."""
        return [row["run_id"] for row in await executor.fetch("waiting_dependents", task_id)]

    async def skip_dependents(self, executor: Executor, run_ids: Sequence[UUID]) -> Settled:
        """End runs whose dependency is being deleted, and whatever waits for them in turn."""
        rows = await executor.fetch("skip_dependents", list(run_ids))
        return await settle_onward(executor, rows, ())

    async def delete(self, executor: Executor, task_id: UUID, actor: str) -> None:
        """Delete a locked task; its runs stay readable until retention takes them."""
        await executor.execute("delete_task", task_id, actor)

    async def insert_run(self, executor: Executor, new: NewRun) -> Queued | None:
        """Make a run of a locked task by hand; return what to offer if it is queued."""
        spec = new.spec
        await executor.execute("count_occurrence", new.task_id)
        run_at = await executor.fetchval(
            "insert_run",
            new.run_id,
            new.task_id,
            new.namespace,
            spec.queue,
            new.lane,
            spec.priority,
            new.state,
            new.reason,
            spec.schedule_timeout,
            new.actor,
            len(new.waits_for) if new.state == "pending" else 0,
            spec.retry.max_attempts,
            new.traceparent,
            gate_name(new.namespace, spec),
        )
        if new.state == "pending" and new.waits_for:
            count = len(new.waits_for)
            await executor.execute(
                "insert_dependencies",
                [new.run_id] * count,
                list(range(count)),
                [new.task_id] * count,
                list(new.waits_for),
                [None] * count,
                ["completion"] * count,
                ["waiting"] * count,
            )
        if new.state != "queued":
            return None
        return Queued(
            run_id=new.run_id,
            lane=new.lane,
            priority=spec.priority,
            run_at=run_at,
            seq=1,
            traceparent=new.traceparent,
        )


_END_OF_TIME = datetime.fromisoformat("9999-12-31T00:00:00+00:00")
_LISTED_BY_RUN = {"list_tasks_ended", "list_tasks_pending", "list_tasks_active"}


def _listing(wanted: TaskFilter) -> tuple[str, tuple[object, ...]]:
    rest = (wanted.name, wanted.tag)
    if wanted.status is not None:
        if wanted.status in TERMINAL:
            return "list_tasks_ended", (wanted.status, *rest)
        if wanted.status in ("scheduled", "paused"):
            return "list_tasks_between_runs", (wanted.status == "paused", *rest)
        return "list_tasks_pending" if wanted.status == "pending" else "list_tasks_active", (wanted.status, *rest)
    if wanted.name is not None:
        return "list_tasks_by_name", rest
    if wanted.tag is not None:
        return "list_tasks_by_tag", (wanted.tag,)
    return "list_tasks", ()


def _stored(row: Any) -> StoredTask:
    last = None
    if row["run_id"] is not None:
        last = LastRun(
            id=row["run_id"],
            state=row["run_state"],
            reason=row["run_reason"],
            scheduled_for=row["run_scheduled_for"],
            started_at=row["run_started_at"],
            finished_at=row["run_finished_at"],
            exit_code=row["run_exit_code"],
            attempt=row["run_attempt"],
        )
    return StoredTask(
        id=row["id"],
        recurring=row["recurring"],
        namespace=row["namespace"],
        name=row["name"],
        spec=row["spec"],
        version=row["version"],
        paused=row["paused"],
        next_fire_at=row["next_fire_at"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
        last_run=last,
    )
