"""Reading tasks, and what can be done to one: pause, resume, cancel, delete, plan."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.definitions import schedule_of
from scheduler.api.payloads import Plan, task_answer
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer, etag, nothing
from scheduler.domain.calendars import blackout_of
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, PreconditionFailed
from scheduler.domain.fires import next_fire_at
from scheduler.domain.task import Moment, decode_spec
from scheduler.domain.workflows import EXECUTOR
from scheduler.domain.zones import instant_of
from scheduler.store.tasks import LockedTask, StoredTask, TaskFilter
from scheduler.wire.runs import Cancelled
from scheduler.wire.tasks import PlannedFire

STATUSES = frozenset(
    {
        "scheduled",
        "paused",
        "pending",
        "queued",
        "running",
        "completed",
        "failed",
        "cancelled",
        "skipped",
        "dead_letter",
    }
)
_MAX_PLANNED = 1000


async def list_tasks(api: Context, request: Request) -> Reply:
    """List tasks, newest first."""
    request.allow_query("status", "queue", "name", "tag", "limit", "cursor")
    query = request.query
    wanted = TaskFilter(
        status=query.get("status"), queue=query.get("queue"), name=query.get("name"), tag=query.get("tag")
    )
    if wanted.status is not None and wanted.status not in STATUSES:
        raise InvalidInput([FieldError("?status", f"must be one of {', '.join(sorted(STATUSES))}")])
    given = [name for name in ("status", "name", "tag") if name in query]
    if len(given) > 1:
        raise InvalidInput([FieldError(f"?{name}", "use one of status, name and tag at a time") for name in given])
    page = await api.tasks.page(request.namespace, wanted, cursor_of(request, UUID), limit_of(request))
    return page_answer(request, page, task_answer)


async def get_task(api: Context, request: Request) -> Reply:
    """Return one task."""
    return _answer(await _get(api, request))


async def pause_task(api: Context, request: Request) -> Reply:
    """Stop a task's fires and hold its waiting runs; executing ones go on."""
    return await _switch(api, request, paused=True)


async def resume_task(api: Context, request: Request) -> Reply:
    """Let a paused task go on; fires that fell due meanwhile follow its catchup rule."""
    return await _switch(api, request, paused=False)


async def cancel_task(api: Context, request: Request) -> Reply:
    """Cancel every live run of a task: 200 if all ended at once, 202 if some have to be ended by their workers."""
    task_id = request.uuid("task")
    async with api.database.transaction() as executor:
        task = found(await api.tasks.lock(executor, request.namespace, task_id), "task", task_id)
        live = await api.tasks.live_runs(executor, task.id)
        cancelled = await api.runs.cancel(executor, request.namespace, [run.id for run in live])
        if not cancelled.done and not cancelled.requested:
            raise Conflict("already_terminal", "the task has no run that could be cancelled")
    api.offers.cancel(cancelled.requested)
    api.offers.settled(cancelled.settled)
    request.note(count=len(cancelled.done) + len(cancelled.requested))
    body = Cancelled(cancelled=cancelled.done, requested=[run_id for run_id, _ in cancelled.requested])
    return answer(body, 202 if cancelled.requested else 200)


async def delete_task(api: Context, request: Request) -> Reply:
    """Delete a task. With live runs or dependents only by `?cascade=cancel`, which cancels and skips them."""
    request.allow_query("cascade")
    cascade = request.query.get("cascade")
    if cascade not in (None, "cancel"):
        raise InvalidInput([FieldError("?cascade", 'must be "cancel"')])
    task_id, expected = request.uuid("task"), request.if_match()
    async with api.database.transaction() as executor:
        task = found(await api.tasks.lock(executor, request.namespace, task_id), "task", task_id)
        demand_version(task, expected)
        if decode_spec(task.spec).executor == EXECUTOR:
            raise Conflict("workflow", f"the task carries the workflow {task.name!r}: delete that instead")
        request.note(version_before=task.version)
        live = await api.tasks.live_runs(executor, task.id)
        dependents = await api.tasks.waiting_dependents(executor, task.id)
        if cascade is None:
            if live:
                raise Conflict("live_runs", f"{len(live)} runs have not ended; ?cascade=cancel cancels them")
            definitions = await api.tasks.dependent_definitions(executor, request.namespace, task.id)
            if dependents or definitions:
                names = ", ".join(repr(name) for name in definitions.values())
                what = f"the tasks {names}" if names else f"{len(dependents)} waiting runs"
                raise Conflict("dependents", f"{what} depend on it; ?cascade=cancel skips what waits")
        skipped = await api.tasks.skip_dependents(executor, dependents)
        cancelled = await api.runs.cancel(executor, request.namespace, [run.id for run in live], reason="task_deleted")
        await api.tasks.delete(executor, task.id, request.actor)
    api.offers.cancel(cancelled.requested)
    api.offers.settled(skipped)
    api.offers.settled(cancelled.settled)
    api.offers.wake_control()
    return nothing()


async def plan_task(api: Context, request: Request) -> Reply:
    """Return the next fires of a task after `from` (default: now)."""
    request.allow_query("n", "from")
    task = await _get(api, request)
    count = request.convert("n", int)
    count = 10 if count is None else count
    if not 1 <= count <= _MAX_PLANNED:
        raise InvalidInput([FieldError("?n", f"must be from 1 to {_MAX_PLANNED}")])
    after = request.convert("from", Moment) or api.clock.now()
    spec = decode_spec(task.spec)
    schedule = schedule_of(spec, task.created_at)
    fires: list[datetime] = []
    while schedule is not None and len(fires) < count:
        following = next_fire_at(schedule, spec, after)
        if following is None:
            break
        fires.append(following)
        after = following
    minutes = [fire.replace(second=0, microsecond=0) for fire in fires]
    loads = await api.tasks.planned_near(request.namespace, minutes) if minutes else []
    blackout = blackout_of(list((await api.calendars.named([(task.namespace, c) for c in spec.calendars])).values()))
    items = []
    for fire, load in zip(fires, loads, strict=True):
        assert schedule is not None
        notes = [*schedule.notes(fire)]
        if blackout is not None and blackout(instant_of(fire)):
            notes.append("skipped: a calendar blacks it out")
        items.append(
            PlannedFire(at=fire, local=schedule.local(fire).isoformat(), note="; ".join(notes) or None, load=load)
        )
    return answer(Plan(items=items))


async def list_fires(api: Context, request: Request) -> Reply:
    """List what became of a task's planned fires, latest first."""
    request.allow_query("disposition", "limit", "cursor")
    task_id = (await _get(api, request)).id
    wanted, before = request.query.get("disposition"), cursor_of(request, datetime)
    return page_answer(request, await api.tasks.fires(task_id, wanted, before, limit_of(request)))


def demand_version(task: StoredTask | LockedTask, expected: int | None) -> None:
    """Raise PreconditionFailed unless the task is at the version that the caller expects (None: any)."""
    if expected is not None and task.version != expected:
        raise PreconditionFailed(expected, task.version)


async def _get(api: Context, request: Request) -> StoredTask:
    task_id = request.uuid("task")
    return found(await api.tasks.get(request.namespace, task_id), "task", task_id)


def _answer(task: StoredTask) -> Reply:
    return answer(task_answer(task), 200, (etag(task.version),))


async def _switch(api: Context, request: Request, *, paused: bool) -> Reply:
    task_id = request.uuid("task")
    async with api.database.transaction() as executor:
        task = found(await api.tasks.lock(executor, request.namespace, task_id), "task", task_id)
        demand_version(task, request.if_match())
        request.note(version_before=task.version)
        change = api.tasks.pause if paused else api.tasks.resume
        if await change(executor, task.id, request.actor):
            api.offers.wake_control()
    return await get_task(api, request)
