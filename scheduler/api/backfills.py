"""Making runs for planned fires that have passed. Like a trigger it waits neither for a pause nor for dependencies."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from scheduler.api.context import Context, found
from scheduler.api.definitions import schedule_of
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import Route
from scheduler.domain.backfill import Backfill, plan_backfill, planned_between
from scheduler.domain.calendars import blackout_of
from scheduler.domain.errors import Conflict, FieldError, InvalidInput
from scheduler.domain.lane import lane_for
from scheduler.domain.task import decode_spec
from scheduler.store.backfill import BackfilledRun, BackfillWriting, decided_about, still_live, write_backfill
from scheduler.wire.backfills import Backfilled, BackfillItem, BackfillRange

_request = msgspec.json.Decoder(BackfillRange)


async def backfill_task(api: Context, request: Request) -> Reply:
    """Make runs for the fires of a range: 201 with what became of each, 200 if nothing was made or on a dry run."""
    request.demand_json()
    wanted = decode(_request, await request.body(api.settings.max_body, api.settings.body_timeout))
    start, end = _range(wanted)
    task_id = request.uuid("task")
    async with api.database.transaction() as executor:
        task = found(await api.tasks.lock(executor, request.namespace, task_id), "task", task_id)
        stored = found(await api.tasks.get(request.namespace, task_id), "task", task_id)
        spec = decode_spec(task.spec)
        schedule = schedule_of(spec, stored.created_at)
        if schedule is None:
            raise Conflict("not_recurring", "the task has no schedule, so it has no fires")
        cursor = task.fire_cursor or stored.created_at
        planned = planned_between(schedule, spec, start, min(end, cursor), wanted.cap + 1)
        live = [run.id for run in await api.tasks.live_runs(executor, task.id)]
        if not wanted.dry_run:
            live = await still_live(executor, live)
        calendars = await api.calendars.named([(task.namespace, name) for name in spec.calendars])
        plan = plan_backfill(
            schedule,
            spec,
            planned,
            await decided_about(executor, task.id, planned[: wanted.cap]),
            cap=wanted.cap,
            overlap=wanted.overlap,
            active=len(live),
            blackout=blackout_of(list(calendars.values())),
        )
        runs: list[BackfilledRun] = []
        if not wanted.dry_run:
            runs = _runs(api, plan, live)
        if runs:
            api.admission.admit(task.namespace, len(runs))
            await api.intake.ensure_lanes(executor, [(task.namespace, spec)])
            await write_backfill(
                executor,
                BackfillWriting(
                    task_id=task.id,
                    namespace=task.namespace,
                    actor=request.actor,
                    spec=spec,
                    lane=lane_for(task.namespace, spec),
                    traceparent=request.traceparent,
                    runs=runs,
                    remains=plan.remains,
                ),
            )
    if runs:
        api.offers.wake_control()
    request.note(count=len(runs))
    return answer(_answer(plan, runs, cursor), 201 if runs else 200)


def _range(wanted: BackfillRange) -> tuple[datetime, datetime]:
    errors = []
    for name, moment in (("from", wanted.start), ("to", wanted.end)):
        if not 1970 <= moment.year <= 9998:  # so that no conversion between zones can leave the calendar
            errors.append(FieldError(f"/{name}", "is out of range: write a moment from 1970 to 9998"))
    if not errors and wanted.start > wanted.end:
        errors.append(FieldError("/to", "is before from: write a later moment"))
    if errors:
        raise InvalidInput(errors)
    return wanted.start.astimezone(UTC), wanted.end.astimezone(UTC)


def _runs(api: Context, plan: Backfill, live: list[UUID]) -> list[BackfilledRun]:
    """Return the runs of a plan, oldest fire first; one that waits does so for every older live run of its task."""
    fires = [fire for fire in plan.fires if fire.result == "run"]
    older, runs = list(live), []
    for fire, run_id in zip(fires, api.ids.take(len(fires)), strict=True):
        runs.append(BackfilledRun(run_id, fire.scheduled_for, list(older) if fire.waits else []))
        older.append(run_id)
    return runs


def _answer(plan: Backfill, runs: list[BackfilledRun], cursor: datetime) -> Backfilled:
    made = {run.scheduled_for: run.id for run in runs}
    items = [
        BackfillItem(
            scheduled_for=fire.scheduled_for,
            result=fire.result,
            reason=fire.reason,
            run_id=made.get(fire.scheduled_for, fire.run_id),
        )
        for fire in plan.fires
    ]
    return Backfilled(items=items, next_from=plan.next_from, decided_until=cursor)


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/tasks/{id}/backfill",
        handler=backfill_task,
        summary="Make runs for planned fires that have passed",
        tag="tasks",
        permission="run:control",
        request=BackfillRange,
        example={"from": "2026-01-01T00:00:00Z", "to": "2026-01-31T00:00:00Z", "dry_run": True},
        responses={200: Backfilled, 201: Backfilled},
        errors=(404, 408, 409, 413, 415, 422),
    ),
)
