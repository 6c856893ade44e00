"""Workflows: definitions. Each has a carrier, the recurring task of its name whose runs are the workflow's runs."""

from __future__ import annotations

from datetime import datetime

import msgspec

from scheduler.api.calendars import refuse_unknown_calendars
from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.definitions import first_fire
from scheduler.api.edits import replan
from scheduler.api.payloads import WorkflowPage
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Header, Reply, answer, etag, location, nothing
from scheduler.api.routing import PAGED, Query, Route
from scheduler.api.secrets import refuse_unknown_secrets
from scheduler.api.tasks import cascades, delete_locked
from scheduler.domain.errors import Conflict, FieldError, InvalidInput, PreconditionFailed
from scheduler.domain.lane import lane_of
from scheduler.domain.task import decode_spec, encode_spec
from scheduler.domain.workflows import WorkflowSpec, carrier_of, normalised
from scheduler.store.database import Executor
from scheduler.store.tasks import Edit, LockedTask
from scheduler.wire.workflows import Workflow

_spec = msgspec.json.Decoder(WorkflowSpec)


async def create_workflow(api: Context, request: Request) -> Reply:
    """Create a workflow."""
    now = api.clock.now()
    spec = await _read(api, request, now)
    await api.tenancy.demand_room(api.namespaces, request.namespace, 1)
    carrier, task_id = carrier_of(spec), api.ids.one()
    async with api.database.transaction() as executor:
        made = await executor.fetch(
            "insert_recurring",
            [task_id],
            [request.namespace],
            [request.actor],
            [carrier.name],
            [carrier.queue],
            [encode_spec(carrier)],
            [now],
            [first_fire(carrier, now, now)],
        )
        if not made:
            raise Conflict("name_taken", f"a workflow or a recurring task is already named {spec.name!r}")
        await _ensure_lanes(api, executor, request.namespace, spec)
        await api.workflows.insert(executor, request.namespace, task_id, spec, request.actor)
    api.offers.wake_control()
    return await _answer(api, request, spec.name, 201, location("/api/workflows", spec.name))


async def list_workflows(api: Context, request: Request) -> Reply:
    """List workflows by name."""
    request.allow_query("limit", "cursor")
    return page_answer(request, await api.workflows.page(request.namespace, cursor_of(request, str), limit_of(request)))


async def get_workflow(api: Context, request: Request) -> Reply:
    """Return one workflow."""
    return await _answer(api, request, request.params["name"], 200)


async def replace_workflow(api: Context, request: Request) -> Reply:
    """Replace a workflow's definition; runs that have begun keep theirs."""
    spec = await _read(api, request, api.clock.now())
    async with api.database.transaction() as executor:
        carrier, stored = await _lock(api, request, executor)
        if spec.name != stored.name:
            raise InvalidInput([FieldError("/name", f"must be {stored.name!r}: a workflow keeps its name")])
        await _replace_carrier(api, request, executor, carrier, spec)
        await _ensure_lanes(api, executor, request.namespace, spec)
        await api.workflows.replace(executor, stored, spec, request.actor)
    api.offers.wake_control()
    return await _answer(api, request, stored.name, 200)


async def delete_workflow(api: Context, request: Request) -> Reply:
    """Delete a workflow. With live runs or dependents only by `?cascade=cancel`, which cancels and skips them."""
    cascade = cascades(request)
    async with api.database.transaction() as executor:
        carrier, _ = await _lock(api, request, executor)
        # The leader ends what the tasks of its runs still run.
        await delete_locked(api, request, executor, carrier.id, cascade=cascade)
        await api.workflows.delete(executor, carrier.id)
    return nothing()


async def find_workflow(api: Context, request: Request) -> Workflow:
    """Return the workflow that the path names."""
    name = request.params["name"]
    return found(await api.workflows.get(request.namespace, name), "workflow", name)


async def _read(api: Context, request: Request, now: datetime) -> WorkflowSpec:
    request.demand_json()
    spec = normalised(decode(_spec, await request.body(api.settings.max_body, api.settings.body_timeout)), now)
    await refuse_unknown_calendars(api, request.namespace, [carrier_of(spec)], "")
    await refuse_unknown_secrets(api, request.namespace, spec.tasks, "/tasks/{index}")
    return spec


async def _lock(api: Context, request: Request, executor: Executor) -> tuple[LockedTask, Workflow]:
    """Return the carrier of the workflow that the path names, and it; both are kept until the transaction ends.

    Raises NotFound; PreconditionFailed unless the workflow is at the version that the caller expects.
    """
    named = await find_workflow(api, request)
    carrier = found(await api.tasks.lock(executor, request.namespace, named.task_id), "workflow", named.name)
    stored = await find_workflow(api, request)  # again: whoever held the lock before may have changed it
    expected = request.if_match()
    if expected is not None and expected != stored.version:
        raise PreconditionFailed(expected, stored.version)
    request.note(version_before=stored.version)
    return carrier, stored


async def _replace_carrier(
    api: Context, request: Request, executor: Executor, locked: LockedTask, spec: WorkflowSpec
) -> None:
    old, carrier = decode_spec(locked.spec), carrier_of(spec)
    if old == carrier:
        return
    await api.tasks.edit(
        executor,
        Edit(
            task_id=locked.id,
            version=locked.version,
            actor=request.actor,
            spec=carrier,
            spec_json=encode_spec(carrier),
            lane=lane_of(request.namespace, carrier.queue, carrier.executor, carrier.requires),
            gate=None,
            run_at=None,
            replan=replan(locked, old, carrier, await executor.fetchval("database_now")),
        ),
    )


async def _ensure_lanes(api: Context, executor: Executor, namespace: str, spec: WorkflowSpec) -> None:
    await api.intake.ensure_lanes(executor, [(namespace, task) for task in (carrier_of(spec), *spec.tasks)])


async def _answer(api: Context, request: Request, name: str, status: int, *headers: Header) -> Reply:
    workflow = found(await api.workflows.get(request.namespace, name), "workflow", name)
    return answer(workflow, status, (etag(workflow.version), *headers))


_WORKFLOW = {
    "name": "etl",
    "schedule": "0 3 * * *",
    "parameters": {"DAY": "yesterday"},
    "tasks": [
        {"name": "extract", "command": "extract.sh"},
        {"name": "load", "command": "load.sh", "depends_on": [{"task": "extract"}]},
    ],
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/workflows",
        permission="command:define",
        handler=create_workflow,
        summary="Create a workflow",
        tag="workflows",
        request=WorkflowSpec,
        example=_WORKFLOW,
        responses={201: Workflow},
        errors=(408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/workflows",
        permission="task:read",
        handler=list_workflows,
        summary="List workflows",
        tag="workflows",
        query=PAGED,
        responses={200: WorkflowPage},
        errors=(422,),
    ),
    Route(
        method="GET",
        path="/api/workflows/{name}",
        permission="task:read",
        handler=get_workflow,
        summary="Read a workflow",
        tag="workflows",
        responses={200: Workflow},
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/api/workflows/{name}",
        permission="command:define",
        handler=replace_workflow,
        summary="Replace a workflow's definition",
        tag="workflows",
        request=WorkflowSpec,
        example=_WORKFLOW,
        responses={200: Workflow},
        errors=(404, 408, 409, 412, 413, 415, 422),
    ),
    Route(
        method="DELETE",
        path="/api/workflows/{name}",
        permission="task:write",
        handler=delete_workflow,
        summary="Delete a workflow",
        tag="workflows",
        query=(Query("cascade", str, "`cancel`: cancel its live runs and their tasks, and skip what waits for it."),),
        responses={204: None},
        errors=(404, 409, 412, 422),
    ),
)
