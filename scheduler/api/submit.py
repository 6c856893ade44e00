"""Accepting work: decode → validate → commit → answer; Redis hears of it afterwards.

What comes again under its `idempotency_key` is known before it is judged: it is answered, whatever has changed since.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import msgspec

from scheduler.api.calendars import refuse_unknown_calendars
from scheduler.api.context import Context, found
from scheduler.api.definitions import resolve
from scheduler.api.payloads import task_answer
from scheduler.api.planning import new_task, plan, unblocked
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer, etag, location
from scheduler.api.routing import Route
from scheduler.api.secrets import refuse_unknown_secrets
from scheduler.domain.errors import InvalidInput
from scheduler.domain.lane import lane_for
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.domain.validation import normalise
from scheduler.store.intake import Created, NewTask, Origin
from scheduler.store.tasks import StoredTask
from scheduler.wire.tasks import LastRun, Task

_one = msgspec.json.Decoder(TaskSpec)


async def create_task(api: Context, request: Request) -> Reply:
    """Create one task."""
    request.demand_json()
    data = await request.body(api.settings.max_body, api.settings.body_timeout)
    now = api.clock.now()
    spec = decode(_one, data)
    if spec.idempotency_key is not None:
        made = await _made_before(api, request, spec, spec.idempotency_key)
        if made is not None:
            return _answer(made, 200)
    spec = normalise(spec, now)
    resolved = None
    if spec.calendars:
        await refuse_unknown_calendars(api, request.namespace, [spec], "")
    await refuse_unknown_secrets(api, request.namespace, [spec], "")
    if spec.depends_on:
        resolved = await resolve(api.tasks, request.namespace, [spec], at="")
    await api.tenancy.demand_room(api.namespaces, request.namespace, int(spec.schedule is not None))
    api.admission.admit(request.namespace, 1)
    planned = plan(api, [spec], now)
    lane = lane_for(request.namespace, spec)
    straight = unblocked(spec, now) and await api.offers.is_open(lane)
    new = new_task(request, spec, 0, planned, resolved, now, straight=straight, origin=_origin(request))
    if spec.idempotency_key is None:
        created = await api.intake.create(new)
    else:
        outcome = await api.intake.create_once(new, spec.idempotency_key, _fingerprint(spec))
        if not isinstance(outcome, Created):
            return await _stored_answer(api, request, outcome.task_id, 200)
        created = outcome
    if new.edges:  # its run may have been skipped already: say what is stored
        return await _stored_answer(api, request, new.task_id, 201)
    return answer(task_answer(_as_stored(new, created)), 201, (etag(1), location("/api/tasks", new.task_id)))


async def _made_before(api: Context, request: Request, asked: TaskSpec, key: str) -> StoredTask | None:
    """Return the task that the same request made under this key, None if the key is free, as that of a deleted one is.

    Raises Conflict if it was another request.
    """
    try:
        spec = normalise(asked, None)
    except InvalidInput:
        return None  # it is refused in any case, and then with what is past, too
    held = await api.intake.held(request.namespace, key)
    if held is None:
        return None
    made = await api.tasks.get(request.namespace, held.task_id)
    if made is None:
        await api.intake.free(request.namespace, held)
        return None
    held.demand(_fingerprint(spec))
    return made


def _fingerprint(spec: TaskSpec) -> bytes:
    """Return what tells requests apart: what a normalised spec says, and not what its names mean at the moment."""
    return sha256(encode_spec(spec)).digest()


def _origin(request: Request) -> Origin:
    """Return what the audit log says of a request that creates one task; that of a batch is logged as one."""
    return Origin(request.request_id, "create_task", request.address)


async def _stored_answer(api: Context, request: Request, task_id: UUID, status: int) -> Reply:
    return _answer(found(await api.tasks.get(request.namespace, task_id), "task", task_id), status)


def _answer(task: StoredTask, status: int) -> Reply:
    return answer(task_answer(task), status, (etag(task.version), location("/api/tasks", task.id)))


def _as_stored(new: NewTask, created: Created) -> StoredTask:
    """Return what a read would give, without reading."""
    run = None
    if new.run_id is not None:
        run = LastRun(
            id=new.run_id,
            state="queued" if created.queued is not None else "pending",
            reason=None,
            scheduled_for=None,
            started_at=None,
            finished_at=None,
            exit_code=None,
            attempt=0,
        )
    return StoredTask(
        id=new.task_id,
        recurring=new.run_id is None,
        namespace=new.namespace,
        name=new.spec.name,
        spec=new.spec_json,
        version=1,
        paused=False,
        next_fire_at=new.next_fire_at,
        created_at=created.created_at,
        created_by=new.actor,
        updated_at=created.created_at,
        updated_by=new.actor,
        last_run=run,
    )


_EXAMPLE = {"name": "report", "command": ["/usr/bin/make", "report"], "retry": {"max_attempts": 3}, "timeout": "10m"}

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/tasks",
        permission="command:define",
        handler=create_task,
        audit="within",
        summary="Create a task",
        tag="tasks",
        request=TaskSpec,
        example=_EXAMPLE,
        responses={200: Task, 201: Task},
        errors=(408, 409, 413, 415, 422),
    ),
)
