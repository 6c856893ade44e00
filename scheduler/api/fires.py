"""When a task fires: what is planned, and what became of it."""

from __future__ import annotations

from datetime import datetime

from scheduler.api.context import Context
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.definitions import schedule_of
from scheduler.api.payloads import FirePage, Plan
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import PAGED, Query, Route
from scheduler.api.tasks import named_task
from scheduler.domain.calendars import blackout_of
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.fires import next_fire_at
from scheduler.domain.task import Moment, decode_spec
from scheduler.domain.zones import instant_of
from scheduler.wire.tasks import PlannedFire

_MAX_PLANNED = 1000


async def plan_task(api: Context, request: Request) -> Reply:
    """Return the next fires of a task after `from` (default: now)."""
    request.allow_query("n", "from")
    task = await named_task(api, request)
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
    task_id = (await named_task(api, request)).id
    wanted, before = request.query.get("disposition"), cursor_of(request, Moment)
    return page_answer(request, await api.tasks.fires(task_id, wanted, before, limit_of(request)))


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/tasks/{id}/plan",
        permission="task:read",
        handler=plan_task,
        summary="When a task fires next",
        tag="tasks",
        query=(
            Query("n", int, "How many fires, 1 to 1000 (default 10)."),
            Query("from", str, "After which moment, RFC 3339 (default: now)."),
        ),
        responses={200: Plan},
        errors=(404, 422),
    ),
    Route(
        method="GET",
        path="/api/tasks/{id}/fires",
        permission="task:read",
        handler=list_fires,
        summary="What became of planned fires",
        tag="tasks",
        query=(
            Query("disposition", str, "Only these: `missed`, `skipped`, `skipped:overlap` …"),
            *PAGED,
        ),
        responses={200: FirePage},
        errors=(404, 422),
    ),
)
