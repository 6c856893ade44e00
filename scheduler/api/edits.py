"""Changing a definition: PUT replaces it, PATCH merges into it (RFC 7396); only these raise a task's version.

Waiting runs follow the new definition; an executing attempt ends under the one it began with, and its run, should it
come back, waits under the new one. A task stays what it is: one-off ones do not become recurring, nor the other way
round.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from scheduler.api.calendars import refuse_unknown_calendars
from scheduler.api.context import Context, found
from scheduler.api.definitions import first_fire, refuse_cycle_with, resolve, schedule_of, with_ids
from scheduler.api.payloads import task_answer
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer, etag
from scheduler.api.routing import Route
from scheduler.api.secrets import refuse_unknown_secrets
from scheduler.api.tasks import demand_version
from scheduler.domain.access import defines_command
from scheduler.domain.errors import Conflict, FieldError, InvalidInput
from scheduler.domain.fires import left_behind
from scheduler.domain.gates import gate_name
from scheduler.domain.lane import lane_for
from scheduler.domain.schedule import Schedule
from scheduler.domain.task import TaskSpec, decode_spec, encode_spec
from scheduler.domain.validation import normalise
from scheduler.domain.workflows import EXECUTOR
from scheduler.store.tasks import Edit, LockedTask, Replan, StoredTask
from scheduler.wire.tasks import Task

_spec = msgspec.json.Decoder(TaskSpec)
_object = msgspec.json.Decoder(dict[str, Any])

NewSpec = Callable[[StoredTask], TaskSpec]


async def replace_task(api: Context, request: Request) -> Reply:
    """Replace a task's definition."""
    request.demand_json()
    spec = decode(_spec, await request.body(api.settings.max_body, api.settings.body_timeout))
    return await _change(api, request, lambda _: spec)


async def patch_task(api: Context, request: Request) -> Reply:
    """Merge a patch into a task's definition; null takes a field back to its default."""
    request.demand_json()
    patch = decode(_object, await request.body(api.settings.max_body, api.settings.body_timeout))
    return await _change(api, request, lambda task: patched(task.spec, patch))


def patched(spec_json: bytes, patch: dict[str, Any]) -> TaskSpec:
    """Return a stored spec with a merge patch applied. Raises a 400 Refusal if it is no spec any more."""
    return decode(_spec, msgspec.json.encode(merge(msgspec.json.decode(spec_json), patch)))


def merge(target: Any, patch: Any) -> Any:
    """Apply an RFC 7396 merge patch to a JSON value."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


async def _change(api: Context, request: Request, new_spec: NewSpec) -> Reply:
    task_id, expected = request.uuid("task"), request.if_match()
    task = found(await api.tasks.get(request.namespace, task_id), "task", task_id)
    demand_version(task, expected)
    request.note(version_before=task.version)
    await change_definition(api, request, task, new_spec(task), expected)
    changed = found(await api.tasks.get(request.namespace, task_id), "task", task_id)
    return answer(task_answer(changed), 200, (etag(changed.version),))


async def change_definition(
    api: Context, request: Request, task: StoredTask, wanted: TaskSpec, expected: int | None
) -> None:
    """Store a new definition of a task that was just read; nothing happens if it says what the old one says.

    Raises InvalidInput, PreconditionFailed, Forbidden, or Conflict if the task was changed meanwhile.
    """
    old = decode_spec(task.spec)
    refuse_carrier(old)
    request.principal.demand("task:write")
    if defines_command(old, wanted):
        request.principal.demand("command:define")
    spec = await _valid(api, task, old, normalise(wanted, api.clock.now()))
    spec_json = encode_spec(spec)
    if spec == old:
        return
    try:
        async with api.database.transaction() as executor:
            locked = found(await api.tasks.lock(executor, task.namespace, task.id), "task", task.id)
            demand_version(locked, expected)
            if locked.version != task.version:
                raise Conflict("changed_meanwhile", "the task was changed at the same time; read it and try again")
            if spec.depends_on != old.depends_on:
                await refuse_cycle_with(api.tasks, executor, locked, spec)
            await api.intake.ensure_lanes(executor, [(task.namespace, spec)])
            now = await executor.fetchval("database_now")
            edit = Edit(
                task_id=task.id,
                version=task.version,
                actor=request.actor,
                spec=spec,
                spec_json=spec_json,
                lane=lane_for(task.namespace, spec),
                gate=gate_name(task.namespace, spec),
                run_at=_new_time(old, spec, now),
                replan=replan(locked, old, spec, now),
            )
            await api.tasks.edit(executor, edit)
    except asyncpg.UniqueViolationError:
        raise Conflict("name_taken", f"a recurring task is already named {spec.name!r}") from None
    api.offers.wake_control()


def refuse_carrier(spec: TaskSpec) -> None:
    """Raise Conflict if a task carries a workflow: it is changed with that."""
    if spec.executor == EXECUTOR:
        raise Conflict("workflow", f"the task carries the workflow {spec.name!r}: change that instead")


async def _valid(api: Context, task: StoredTask, old: TaskSpec, spec: TaskSpec) -> TaskSpec:
    if (spec.schedule is not None) != task.recurring:
        kind = "recurring" if task.recurring else "one-off"
        raise InvalidInput([FieldError("/schedule", f"a {kind} task stays one: create another task instead")])
    if spec.calendars != old.calendars:
        await refuse_unknown_calendars(api, task.namespace, [spec], "")
    if spec.env != old.env:
        await refuse_unknown_secrets(api, task.namespace, [spec], "")
    if not task.recurring:
        if spec.depends_on != old.depends_on:
            detail = "what a one-off task waits for is fixed when it is created"
            raise InvalidInput([FieldError("/depends_on", detail)])
        return spec
    if not spec.depends_on:
        return spec
    resolved = await resolve(api.tasks, task.namespace, [spec], at="")
    # A name of its own in `depends_on` was a cycle already: what is left are stored tasks.
    upstream = [target for target in resolved.targets[0] if isinstance(target, UUID)]
    return with_ids(spec, upstream, [])


def replan(task: LockedTask, old: TaskSpec, new: TaskSpec, now: datetime) -> Replan:
    """Decide what an edit does to the planned fires of a locked task; `now` is PostgreSQL's time, read after locking.

    An edit that moves none leaves the cursor, and so all that has come due while the task was paused, or nobody led.
    Any other gives up the old plan: what had come due of it is missed, and the new one begins now.
    """
    before, after = _planned_by(old, task.created_at), _planned_by(new, task.created_at)
    if before == after:
        return Replan(task.next_fire_at)
    cursor = task.fire_cursor or task.created_at
    begins = max(cursor, now)
    given_up = before[0]
    missed = left_behind(old, given_up, cursor=cursor, now=now) if isinstance(given_up, Schedule) else None
    return Replan(first_fire(new, task.created_at, begins), begins, missed)


def _planned_by(spec: TaskSpec, created_at: datetime) -> tuple[Schedule | str | None, datetime | None, datetime | None]:
    """Return what says when a task fires; the text of a stored schedule that cannot be read, which an edit may mend."""
    try:
        schedule: Schedule | str | None = schedule_of(spec, created_at)
    except ValueError:
        schedule = spec.schedule
    return schedule, spec.starts_at, spec.ends_at


def _new_time(old: TaskSpec, new: TaskSpec, now: datetime) -> datetime | None:
    """Return when a one-off task's waiting run shall run instead, None if the edit says nothing about it."""
    if new.schedule is not None or (old.run_at, old.delay) == (new.run_at, new.delay):
        return None
    return new.run_at or now + timedelta(seconds=float(new.delay or 0))


_NIGHTLY = {"name": "nightly", "command": "backup.sh", "schedule": "30 2 * * *", "timezone": "Europe/Berlin"}

ROUTES: tuple[Route, ...] = (
    Route(
        method="PUT",
        path="/api/tasks/{id}",
        permission="task:write",
        handler=replace_task,
        summary="Replace a task's definition",
        tag="tasks",
        request=TaskSpec,
        example=_NIGHTLY,
        responses={200: Task},
        errors=(404, 408, 409, 412, 413, 415, 422),
    ),
    Route(
        method="PATCH",
        path="/api/tasks/{id}",
        permission="task:write",
        handler=patch_task,
        summary="Change a task's definition (merge patch)",
        tag="tasks",
        request=dict[str, Any],
        request_media=("application/merge-patch+json", "application/json"),
        example={"priority": 9, "retry": {"max_attempts": 5}},
        responses={200: Task},
        errors=(404, 408, 409, 412, 413, 415, 422),
    ),
)
