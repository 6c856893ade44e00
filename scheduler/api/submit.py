"""Accepting work: decode → validate → commit → answer; Redis hears of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec

from scheduler.api.calendars import refuse_unknown_calendars
from scheduler.api.context import Context, found
from scheduler.api.definitions import Planned, Resolved, edges_of, first_fire, resolve, with_ids
from scheduler.api.payloads import BatchAnswer, task_answer
from scheduler.api.problems import Refusal
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer, etag, location
from scheduler.api.secrets import refuse_unknown_secrets
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.lane import lane_for
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.domain.validation import effective_run_at, normalise
from scheduler.store.edges import Edge
from scheduler.store.intake import Created, NewTask, Origin
from scheduler.store.tasks import StoredTask
from scheduler.wire.tasks import Created as CreatedItem
from scheduler.wire.tasks import LastRun

NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})

_CHUNK = 500
_MAX_ERRORS = 100
_one = msgspec.json.Decoder(TaskSpec)
_many = msgspec.json.Decoder(list[TaskSpec])


async def create_task(api: Context, request: Request) -> Reply:
    """Create one task."""
    request.demand_json()
    data = await request.body(api.settings.max_body, api.settings.body_timeout)
    now = api.clock.now()
    spec = normalise(decode(_one, data), now)
    resolved = None
    if spec.calendars:
        await refuse_unknown_calendars(api, request.namespace, [spec], "")
    await refuse_unknown_secrets(api, request.namespace, [spec], "")
    if spec.depends_on:
        resolved = await resolve(api.tasks, request.namespace, [spec], at="")
    await api.tenancy.demand_room(api.namespaces, request.namespace, int(spec.schedule is not None))
    api.admission.admit(request.namespace, 1)
    planned = _plan(api, [spec], now)
    lane = lane_for(request.namespace, spec)
    straight = _unblocked(spec, now) and await api.offers.is_open(lane)
    new = _new_task(request, spec, 0, planned, resolved, now, straight=straight, origin=_origin(request))
    if spec.idempotency_key is None:
        created = await api.intake.create(new)
    else:
        outcome = await api.intake.create_once(new, spec.idempotency_key, sha256(new.spec_json).digest(), None)
        if not isinstance(outcome, Created):
            return await _stored_answer(api, request, outcome.task_id, 200)
        created = outcome
    if new.edges:  # its run may have been skipped already: say what is stored
        return await _stored_answer(api, request, new.task_id, 201)
    return answer(task_answer(_as_stored(new, created)), 201, (etag(1), location("/api/tasks", new.task_id)))


async def create_batch(api: Context, request: Request) -> Reply:
    """Create up to 10,000 tasks in one transaction: all or nothing, complaints by index."""
    settings = api.settings
    lines = request.media_type in NDJSON
    if not lines:
        request.demand_json()
    data = await request.body(settings.max_body, settings.body_timeout)
    specs = _decode_lines(data) if lines else decode(_many, data)
    if len(specs) > settings.max_batch:
        raise Refusal(413, "too-large", f"a batch holds {settings.max_batch} tasks at most, not {len(specs)}")
    if not specs:
        raise InvalidInput([FieldError("", "a batch holds at least one task")])
    now = api.clock.now()
    resolved = None
    if any(spec.calendars for spec in specs):
        await refuse_unknown_calendars(api, request.namespace, specs, "/{index}")
    await refuse_unknown_secrets(api, request.namespace, specs, "/{index}")
    if any(spec.depends_on for spec in specs):
        specs = _normalise_all(specs, now)
        resolved = await resolve(api.tasks, request.namespace, specs, at="/{index}")
    await api.tenancy.demand_room(api.namespaces, request.namespace, sum(s.schedule is not None for s in specs))
    api.admission.admit(request.namespace, len(specs))
    lanes = {lane_for(request.namespace, s) for s in specs}
    open_lanes = {lane for lane in lanes if await api.offers.is_open(lane)}
    created = await api.intake.create_batch(_chunks(api, request, specs, resolved, open_lanes, now))
    request.note(count=len(created))
    return answer(BatchAnswer(items=[CreatedItem(id=c.task_id, run_id=c.run_id) for c in created]), 201)


def _decode_lines(data: bytes) -> list[TaskSpec]:
    """Decode NDJSON; pointers begin with the number of the line, counted from 0, blank lines left out."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    return [decode(_one, line, f"/{index}") for index, line in enumerate(lines)]


def _normalise_all(specs: Sequence[TaskSpec], now: datetime, first_index: int = 0) -> list[TaskSpec]:
    """Validate some tasks of a batch. Raises InvalidInput with the complaints about all of them, by index."""
    valid: list[TaskSpec] = []
    errors: list[FieldError] = []
    for index, spec in enumerate(specs, first_index):
        try:
            valid.append(normalise(spec, now, f"/{index}"))
        except InvalidInput as error:
            errors += error.errors
            if len(errors) >= _MAX_ERRORS:
                break
        if spec.idempotency_key is not None:
            errors.append(FieldError(f"/{index}/idempotency_key", "is for single tasks: a batch is one request"))
    if errors:
        raise InvalidInput(errors[:_MAX_ERRORS])
    return valid


def _chunks(
    api: Context,
    request: Request,
    specs: Sequence[TaskSpec],
    resolved: Resolved | None,
    open_lanes: set[str],
    now: datetime,
) -> Iterator[list[NewTask]]:
    """Prepare a batch piece by piece: the database writes one while the next is validated and encoded."""
    # With dependencies, all are valid already, and ids are needed ahead because edges may point forward.
    planned = _plan(api, specs, now) if resolved is not None else []
    for start in range(0, len(specs), _CHUNK):
        chunk = specs[start : start + _CHUNK]
        offset = 0
        if resolved is None:
            try:
                chunk = _normalise_all(chunk, now, start)
            except InvalidInput as error:
                _complain_about_all(error, specs[start + _CHUNK :], now, start + _CHUNK)
            planned, offset = _plan(api, chunk, now), start
        prepared = []
        for index, spec in enumerate(chunk, start):
            lane = lane_for(request.namespace, spec)
            straight = lane in open_lanes and _unblocked(spec, now)
            prepared.append(_new_task(request, spec, index - offset, planned, resolved, now, straight=straight))
        yield prepared


def _complain_about_all(error: InvalidInput, rest: Sequence[TaskSpec], now: datetime, first_index: int) -> None:
    """Raise an error again together with the complaints about the tasks that come later in the batch."""
    try:
        _normalise_all(rest, now, first_index)
    except InvalidInput as more:
        raise InvalidInput([*error.errors, *more.errors][:_MAX_ERRORS]) from None
    raise error


def _plan(api: Context, specs: Sequence[TaskSpec], now: datetime) -> list[Planned]:
    ids = api.ids.take(2 * len(specs))
    return [
        Planned(task_id, run_id, None) if spec.schedule is None else Planned(task_id, None, first_fire(spec, now, now))
        for spec, task_id, run_id in zip(specs, ids[::2], ids[1::2], strict=True)
    ]


def _new_task(
    request: Request,
    spec: TaskSpec,
    index: int,
    planned: Sequence[Planned],
    resolved: Resolved | None,
    now: datetime,
    *,
    straight: bool,
    origin: Origin | None = None,
) -> NewTask:
    mine = planned[index]
    edges: Sequence[Edge] = ()
    if spec.depends_on and resolved is not None:
        if mine.run_id is None:
            spec = with_ids(spec, resolved.targets[index], planned)
        else:
            edges = edges_of(spec, resolved.targets[index], planned, resolved.stored)
    spec_json = encode_spec(spec)
    if spec.run_at is not None:
        spec = msgspec.structs.replace(spec, run_at=effective_run_at(spec, now))
    return NewTask(
        mine.task_id,
        mine.run_id,
        request.namespace,
        request.actor,
        spec,
        spec_json,
        edges,
        straight,
        request.traceparent,
        None if mine.run_id is not None else now,
        mine.next_fire_at,
        origin,
    )


def _origin(request: Request) -> Origin:
    """Return what the audit log says of a request that creates one task; that of a batch is logged as one."""
    return Origin(request.request_id, "create_task", request.address)


def _unblocked(spec: TaskSpec, now: datetime) -> bool:
    """Say whether nothing but the workers' slots can keep a new one-off run waiting."""
    return (
        spec.schedule is None
        and not spec.delay
        and not spec.depends_on
        and spec.concurrency is None
        and spec.rate_limit is None
        and spec.fairness_key is None
        and (spec.run_at is None or spec.run_at <= now)
        and (spec.starts_at is None or spec.starts_at <= now)
    )


async def _stored_answer(api: Context, request: Request, task_id: UUID, status: int) -> Reply:
    task = found(await api.tasks.get(request.namespace, task_id), "task", task_id)
    return answer(task_answer(task), status, (etag(task.version), location("/api/tasks", task_id)))


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
