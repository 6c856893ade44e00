"""Reading tasks, and what can be done to one: pause, resume, cancel, delete."""

from __future__ import annotations

from uuid import UUID

from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.payloads import TaskPage, task_answer
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer, etag, nothing
from scheduler.api.routing import PAGED, QUEUE, Query, Route
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, PreconditionFailed
from scheduler.domain.task import decode_spec
from scheduler.domain.workflows import EXECUTOR
from scheduler.store.database import Executor
from scheduler.store.tasks import LockedTask, StoredTask, TaskFilter
from scheduler.wire.runs import Cancelled
from scheduler.wire.tasks import Task, TaskStatus

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


async def list_tasks(api: Context, request: Request) -> Reply:
    """List tasks, newest first."""
    request.allow_query("status", "queue", "name", "tag", "limit", "cursor")
    query = request.query
    wanted = TaskFilter(
        status=query.get("status"), queue=query.get("queue"), name=query.get("name"), tag=query.get("tag")
    )
    if wanted.status is not None and wanted.status not in STATUSES:
        raise InvalidInput([FieldError("?status", f"must be one of {', '.join(sorted(STATUSES))}")])
    page = await api.tasks.page(request.namespace, wanted, cursor_of(request, UUID), limit_of(request))
    return page_answer(request, page, task_answer)


async def get_task(api: Context, request: Request) -> Reply:
    """Return one task."""
    return _answer(await named_task(api, request))


async def pause_task(api: Context, request: Request) -> Reply:
    """Stop a task's fires and hold its waiting runs; executing ones, and those of a workflow that have begun, go on."""
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
    cascade = cascades(request)
    task_id, expected = request.uuid("task"), request.if_match()
    async with api.database.transaction() as executor:
        task = found(await api.tasks.lock(executor, request.namespace, task_id), "task", task_id)
        demand_version(task, expected)
        if decode_spec(task.spec).executor == EXECUTOR:
            raise Conflict("workflow", f"the task carries the workflow {task.name!r}: delete that instead")
        request.note(version_before=task.version)
        await delete_locked(api, request, executor, task.id, cascade=cascade)
    return nothing()


def cascades(request: Request) -> bool:
    """Say whether a DELETE ends what lives and what waits, too. Raises InvalidInput."""
    request.allow_query("cascade")
    cascade = request.query.get("cascade")
    if cascade not in (None, "cancel"):
        raise InvalidInput([FieldError("?cascade", 'must be "cancel"')])
    return cascade is not None


async def delete_locked(api: Context, request: Request, executor: Executor, task_id: UUID, *, cascade: bool) -> None:
    """Delete a locked task: one with live runs or dependents only by cascade, which cancels and skips them.

    Recurring dependents stay, and their runs are skipped from now on. Raises Conflict (`live_runs`, `dependents`).
    """
    live = await api.tasks.live_runs(executor, task_id)
    dependents = await api.tasks.waiting_dependents(executor, task_id)
    if not cascade:
        if live:
            raise Conflict("live_runs", f"{len(live)} runs have not ended; ?cascade=cancel cancels them")
        definitions = await api.tasks.dependent_definitions(executor, request.namespace, task_id)
        if dependents or definitions:
            names = ", ".join(repr(name) for name in definitions.values())
            what = f"the tasks {names}" if names else f"{len(dependents)} waiting runs"
            raise Conflict("dependents", f"{what} depend on it; ?cascade=cancel skips what waits")
    # What waits goes first: to some of it the end of a run is what it waits for.
    skipped = await api.tasks.skip_dependents(executor, dependents)
    cancelled = await api.runs.cancel(executor, request.namespace, [run.id for run in live], reason="task_deleted")
    await api.tasks.delete(executor, task_id, request.actor)
    api.offers.cancel(cancelled.requested)
    api.offers.settled(skipped)
    api.offers.settled(cancelled.settled)
    api.offers.wake_control()


def demand_version(task: StoredTask | LockedTask, expected: int | None) -> None:
    """Raise PreconditionFailed unless the task is at the version that the caller expects (None: any)."""
    if expected is not None and task.version != expected:
        raise PreconditionFailed(expected, task.version)


async def named_task(api: Context, request: Request) -> StoredTask:
    """Return the task that the path names. Raises NotFound."""
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


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/tasks",
        permission="task:read",
        handler=list_tasks,
        summary="List tasks",
        tag="tasks",
        query=(
            Query("status", TaskStatus, "Only those in this state."),
            QUEUE,
            Query("name", str, "Only those of exactly this name."),
            Query("tag", str, "Only those that bear this tag."),
            *PAGED,
        ),
        responses={200: TaskPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/tasks/{id}",
        permission="task:read",
        handler=get_task,
        summary="Read a task",
        tag="tasks",
        responses={200: Task},
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path="/api/tasks/{id}",
        permission="task:write",
        handler=delete_task,
        summary="Delete a task",
        tag="tasks",
        query=(Query("cascade", str, "`cancel`: cancel its live runs and skip what waits for it."),),
        responses={204: None},
        errors=(404, 409, 412, 422),
    ),
    Route(
        method="POST",
        path="/api/tasks/{id}/cancel",
        permission="run:control",
        handler=cancel_task,
        summary="Cancel a task's live runs",
        tag="tasks",
        responses={200: Cancelled, 202: Cancelled},
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/api/tasks/{id}/pause",
        permission="task:control",
        handler=pause_task,
        summary="Pause a task",
        tag="tasks",
        responses={200: Task},
        errors=(404, 412),
    ),
    Route(
        method="POST",
        path="/api/tasks/{id}/resume",
        permission="task:control",
        handler=resume_task,
        summary="Resume a paused task",
        tag="tasks",
        responses={200: Task},
        errors=(404, 412),
    ),
)
