"""Accepting many tasks at once: all or nothing, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from scheduler.api.calendars import refuse_unknown_calendars
from scheduler.api.context import Context
from scheduler.api.definitions import Resolved, resolve
from scheduler.api.payloads import BatchAnswer
from scheduler.api.planning import new_task, plan, unblocked
from scheduler.api.problems import Refusal
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import Route
from scheduler.api.secrets import refuse_unknown_secrets
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.lane import lane_for
from scheduler.domain.task import TaskSpec
from scheduler.domain.validation import normalise
from scheduler.store.intake import NewTask
from scheduler.wire.tasks import Created as CreatedItem

NDJSON = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})

_CHUNK = 500
_MAX_ERRORS = 100
_one = msgspec.json.Decoder(TaskSpec)
_many = msgspec.json.Decoder(list[TaskSpec])


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
    planned = plan(api, specs, now) if resolved is not None else []
    for start in range(0, len(specs), _CHUNK):
        chunk = specs[start : start + _CHUNK]
        offset = 0
        if resolved is None:
            try:
                chunk = _normalise_all(chunk, now, start)
            except InvalidInput as error:
                _complain_about_all(error, specs[start + _CHUNK :], now, start + _CHUNK)
            planned, offset = plan(api, chunk, now), start
        prepared = []
        for index, spec in enumerate(chunk, start):
            lane = lane_for(request.namespace, spec)
            straight = lane in open_lanes and unblocked(spec, now)
            prepared.append(new_task(request, spec, index - offset, planned, resolved, now, straight=straight))
        yield prepared


def _complain_about_all(error: InvalidInput, rest: Sequence[TaskSpec], now: datetime, first_index: int) -> None:
    """Raise an error again together with the complaints about the tasks that come later in the batch."""
    try:
        _normalise_all(rest, now, first_index)
    except InvalidInput as more:
        raise InvalidInput([*error.errors, *more.errors][:_MAX_ERRORS]) from None
    raise error


_BATCH = [
    {"name": "fetch", "command": "fetch.sh"},
    {"name": "parse", "command": "parse.sh", "depends_on": [{"task": "fetch"}]},
]

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/tasks/batch",
        permission="command:define",
        handler=create_batch,
        summary="Create many tasks, all or nothing",
        tag="tasks",
        request=list[TaskSpec],
        request_media=("application/json", "application/x-ndjson"),
        example=_BATCH,
        responses={201: BatchAnswer},
        errors=(408, 409, 413, 415, 422),
    ),
)
