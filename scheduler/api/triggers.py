"""Running a task now, by hand: the overlap policy is obeyed, its pause and its dependencies are not waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from scheduler.api.context import Context, found
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer, location
from scheduler.api.routing import Route
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.gates import gate_name
from scheduler.domain.lane import lane_for
from scheduler.domain.overlap import admit
from scheduler.domain.run import Run
from scheduler.domain.task import decode_spec
from scheduler.domain.workflows import EXECUTOR
from scheduler.store.backfill import still_live
from scheduler.store.database import Executor
from scheduler.store.runs import Cancelled
from scheduler.store.tasks import NewRun


async def trigger_task(api: Context, request: Request) -> Reply:
    """Make a run of a task now; one that the overlap policy refuses is created `skipped`."""
    if await request.body(api.settings.max_body, api.settings.body_timeout) not in (b"", b"{}"):
        raise InvalidInput([FieldError("", "a trigger takes no body")])
    run_id = await start_run(api, request, request.uuid("task"))
    run = found(await api.runs.get(request.namespace, run_id), "run", run_id)
    return answer(run, 201, (location("/api/runs", run_id),))


async def start_run(
    api: Context, request: Request, task_id: UUID, begin: Callable[[Executor, UUID], Awaitable[None]] | None = None
) -> UUID:
    """Make a run of a task now, and return its id; `begin` writes what belongs to it in the same transaction."""
    cancelled: Cancelled | None = None
    async with api.database.transaction() as executor:
        task = found(await api.tasks.lock(executor, request.namespace, task_id), "task", task_id)
        spec = decode_spec(task.spec)
        lane = lane_for(task.namespace, spec)
        active = [run.id for run in await api.tasks.live_runs(executor, task.id)]
        verdict = admit(spec.overlap, len(active))
        if verdict.cancel is not None:
            cancelled = await api.runs.cancel(executor, task.namespace, active, reason=f"overlap:{spec.overlap}")
            active = [run_id for run_id, _ in cancelled.requested]
        waits_for = await still_live(executor, active) if verdict.waits else []
        free = not waits_for and spec.executor != EXECUTOR and gate_name(task.namespace, spec) is None
        straight = free and verdict.refused is None and await api.offers.is_open(lane)
        if verdict.refused is None:
            api.admission.admit(request.namespace, 1)
        await api.intake.ensure_lanes(executor, [(task.namespace, spec)])
        new = NewRun(
            run_id=api.ids.one(),
            task_id=task.id,
            namespace=task.namespace,
            actor=request.actor,
            spec=spec,
            lane=lane,
            state="skipped" if verdict.refused else "queued" if straight else "pending",
            reason=verdict.refused,
            waits_for=waits_for,
            traceparent=request.traceparent,
        )
        queued = await api.tasks.insert_run(executor, new)
        if begin is not None and verdict.refused is None:
            await begin(executor, new.run_id)
    if cancelled is not None:
        api.offers.cancel(cancelled.requested)
        api.offers.settled(cancelled.settled)
    if queued is not None:
        api.offers.push((queued,))
    elif verdict.refused is None:
        api.offers.wake_control()
    return new.run_id


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/tasks/{id}/trigger",
        permission="run:control",
        handler=trigger_task,
        summary="Run a task now",
        tag="tasks",
        responses={201: Run},
        errors=(404, 413, 422),
    ),
)
