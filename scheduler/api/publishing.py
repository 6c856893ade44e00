"""Events that somebody publishes: `POST /api/events/{name}` starts every task whose schedule is `@event NAME`.

The event, the runs and the entry of the audit log are one transaction. What starts a run is the same as by hand: its
overlap rule is obeyed, and what a namespace may have waiting. Paused tasks, and those outside of `starts_at` and
`ends_at`, are not started.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec

from scheduler.api.checkpoints import demand_current
from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.payloads import EventPage
from scheduler.api.problems import Refusal
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer
from scheduler.api.routing import PAGED, Query, Route
from scheduler.api.runs import named_run
from scheduler.api.triggers import start_run
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.schedule import EVENT_NAME
from scheduler.domain.workflows import EXECUTOR, check_start
from scheduler.store.database import Executor
from scheduler.store.events import Subscriber
from scheduler.wire.events import BegunRun, PublishedEvent

_LARGEST: Final = 256 * 1024  # bytes of a payload

_json = msgspec.json.Decoder()


async def publish_event(api: Context, request: Request) -> Reply:
    """Say that something has happened; the body is its payload, any JSON value or none.

    Each task whose schedule is `@event NAME` gets a run, which reads the payload at `/api/runs/{id}/event`. For a
    workflow, texts of the payload that are named as its parameters are the run's parameters.
    """
    name = request.params["name"]
    if not EVENT_NAME.fullmatch(name):
        raise InvalidInput([FieldError("", "an event is named by 1 to 200 letters, digits, '.', '_' and '-'")])
    request.demand_json()
    body = await request.body(api.settings.max_body, api.settings.body_timeout)
    payload = decode(_json, body) if body else None
    encoded = msgspec.json.encode(payload)
    if len(encoded) > _LARGEST:
        raise Refusal(413, "too-large", f"a payload has {_LARGEST} bytes at most")
    begun: list[BegunRun] = []
    async with api.database.transaction() as executor:
        event = await api.events.publish(executor, api.ids.one(), request.namespace, name, encoded, request.actor)
        for subscriber in await api.events.subscribers(executor, request.namespace, name):
            spec = subscriber.spec
            if not (spec.starts_at or event.published_at) <= event.published_at <= (spec.ends_at or event.published_at):
                continue
            begin = partial(_begin, api, request, subscriber, payload) if spec.executor == EXECUTOR else None
            run_id = await start_run(api, request, subscriber.task_id, begin)
            begun.append(BegunRun(task_id=subscriber.task_id, run_id=run_id))
        if begun:
            await api.events.note_runs(executor, event.id, begun)
    request.note(count=max(1, len(begun)))
    return answer(msgspec.structs.replace(event, runs=begun), 201)


async def list_events(api: Context, request: Request) -> Reply:
    """List what was published, newest first, with the runs that began because of it."""
    request.allow_query("name", "limit", "cursor")
    name = request.query.get("name")
    page = await api.events.page(request.namespace, name, cursor_of(request, UUID), limit_of(request))
    return page_answer(request, page)


async def get_event_of_run(api: Context, request: Request) -> Reply:
    """Return the event that a run began with, and its payload."""
    await demand_current(api, request)
    run = await named_run(api, request)
    return answer(found(await api.events.of_run(request.namespace, run.id), "event of run", run.id))


async def _begin(
    api: Context, request: Request, subscriber: Subscriber, payload: Any, executor: Executor, run_id: UUID
) -> None:
    """Note what a workflow's run takes of the payload as its parameters."""
    workflow = await api.workflows.get(request.namespace, subscriber.name)
    if workflow is None or not isinstance(payload, Mapping):
        return
    given = {key: payload[key] for key in workflow.parameters if isinstance(payload.get(key), str)}
    try:
        check_start(workflow, given)
    except InvalidInput as error:
        of_workflow = f"the parameters of the workflow {workflow.name!r}"
        raise InvalidInput(
            [FieldError("", f"{of_workflow}: {complaint.detail}") for complaint in error.errors]
        ) from error
    await api.workflows.begin(executor, run_id, subscriber.task_id, given)


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/events/{name}",
        permission="event:publish",
        handler=publish_event,
        summary="Publish an event",
        tag="events",
        request=Any,
        optional_body=True,
        example={"version": "1.4.2"},
        responses={201: PublishedEvent},
        errors=(404, 408, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/events",
        permission="event:read",
        handler=list_events,
        summary="List published events",
        tag="events",
        query=(Query("name", str, "Only those of this name."), *PAGED),
        responses={200: EventPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/runs/{id}/event",
        permission="run:read",
        run_token=True,
        handler=get_event_of_run,
        summary="Read the event that a run began with",
        tag="events",
        responses={200: PublishedEvent},
        errors=(404,),
    ),
)
