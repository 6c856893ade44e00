"""Runs of workflows: start one, look at its tasks, cancel it, run again what did not complete."""

from __future__ import annotations

from uuid import UUID

import msgspec

from scheduler.api.context import Context, found
from scheduler.api.cursors import cursor_of, limit_of, page_answer
from scheduler.api.payloads import WorkflowRunPage
from scheduler.api.requests import Request, decode
from scheduler.api.responses import Reply, answer, location
from scheduler.api.routing import PAGED, Query, Route
from scheduler.api.triggers import start_run
from scheduler.api.workflows import find_workflow
from scheduler.domain.errors import Conflict, FieldError, InvalidInput
from scheduler.domain.run import LIVE, TERMINAL, RunState
from scheduler.domain.workflows import check_start, edges_of, to_rerun
from scheduler.store.database import Executor
from scheduler.wire.runs import Cancelled
from scheduler.wire.workflows import WorkflowRunDetail, WorkflowStart

_start = msgspec.json.Decoder(WorkflowStart)


async def start_workflow(api: Context, request: Request) -> Reply:
    """Run a workflow now; a run that its overlap rule refuses is created `skipped`."""
    request.demand_json()
    body = await request.body(api.settings.max_body, api.settings.body_timeout)
    wanted = decode(_start, body) if body else WorkflowStart()
    workflow = await find_workflow(api, request)
    unknown = sorted(wanted.parameters.keys() - workflow.parameters.keys())
    if unknown:
        known = ", ".join(sorted(workflow.parameters)) or "none"
        raise InvalidInput(
            [
                FieldError("/parameters", f"the workflow has no parameter {name[:60]!r} (it has: {known})")
                for name in unknown
            ]
        )
    check_start(workflow, wanted.parameters)

    async def begin(executor: Executor, run_id: UUID) -> None:
        await api.workflows.begin(executor, run_id, workflow.task_id, wanted.parameters)

    run_id = await start_run(api, request, workflow.task_id, begin)
    return await _answer(api, request, run_id, 201)


async def list_workflow_runs(api: Context, request: Request) -> Reply:
    """List the runs of a workflow, newest first."""
    request.allow_query("state", "limit", "cursor")
    state = request.query.get("state")
    if state is not None and state not in LIVE | TERMINAL:
        raise InvalidInput([FieldError("?state", f"must be one of {', '.join(sorted(LIVE | TERMINAL))}")])
    workflow = await find_workflow(api, request)
    page = await api.workflows.runs(workflow.task_id, state, cursor_of(request, UUID), limit_of(request))
    return page_answer(request, page)


async def get_workflow_run(api: Context, request: Request) -> Reply:
    """Return a workflow run with where each of its tasks stands."""
    return await _answer(api, request, request.uuid("workflow run"), 200)


async def cancel_workflow_run(api: Context, request: Request) -> Reply:
    """Cancel a workflow run and its tasks: 200 if all ended at once, 202 if workers have to end some."""
    run_id = request.uuid("workflow run")
    async with api.database.transaction() as executor:
        run = found(await api.workflows.run(request.namespace, run_id, executor), "workflow run", run_id)
        # The run first: the ends of its tasks must not bring it to another end.
        itself = await api.runs.cancel(executor, request.namespace, [run_id])
        nodes = await api.runs.cancel(executor, request.namespace, [node.run_id for node in run.nodes])
        done, requested = [*itself.done, *nodes.done], [*itself.requested, *nodes.requested]
        if not done and not requested:
            raise Conflict("already_terminal", f"the workflow run is {run.state}")
    api.offers.cancel(requested)
    api.offers.settled(itself.settled)
    api.offers.settled(nodes.settled)
    return answer(Cancelled(cancelled=done, requested=[r for r, _ in requested]), 202 if requested else 200)


async def rerun_workflow_run(api: Context, request: Request) -> Reply:
    """Run again what did not complete, under the definition that the run began with; what completed stands."""
    if await request.body(api.settings.max_body, api.settings.body_timeout) not in (b"", b"{}"):
        raise InvalidInput([FieldError("", "a rerun takes no body")])
    run_id = request.uuid("workflow run")
    async with api.database.transaction() as executor:
        run = found(await api.workflows.run(request.namespace, run_id, executor), "workflow run", run_id)
        spec = await api.workflows.begun(executor, run_id)
        if run.state in LIVE or any(node.state in LIVE for node in run.nodes):
            raise Conflict("not_retriable", "the workflow run, or one of its tasks, has not ended")
        if spec is None or not run.nodes:
            raise Conflict("not_retriable", "the workflow run never began: start another one")
        edges = edges_of(spec)
        again = to_rerun([node.state for node in run.nodes], edges)
        if not again:
            raise Conflict("nothing_to_rerun", "every task of the workflow run has completed")
        ids = [run_id, *(run.nodes[n].run_id for n in again)]
        revivable = await api.runs.revivable(executor, request.namespace, ids)
        if len(revivable) < len(ids) or any(known.deleted for known in revivable.values()):
            raise Conflict("task_deleted", "the workflow, or one of the run's tasks, has been deleted")
        api.admission.admit(request.namespace, len(ids))
        specs = [(known.run_id, known.spec) for known in revivable.values()]
        if len(await api.runs.revive(executor, request.namespace, specs, request.actor)) < len(ids):
            raise Conflict("changed_meanwhile", "the workflow run was changed at the same time; read it and try again")
        await api.workflows.wait_anew(executor, run_id, run.nodes, edges, again)
    api.offers.revived(ids)
    return await _answer(api, request, run_id, 200)


async def _answer(api: Context, request: Request, run_id: UUID, status: int) -> Reply:
    run = found(await api.workflows.run(request.namespace, run_id), "workflow run", run_id)
    headers = (location("/api/workflow-runs", run_id),) if status == 201 else ()
    return answer(run, status, headers)


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/api/workflows/{name}/runs",
        permission="run:control",
        handler=start_workflow,
        summary="Run a workflow now",
        tag="workflows",
        request=WorkflowStart,
        optional_body=True,
        example={"parameters": {"DAY": "2026-01-31"}},
        responses={201: WorkflowRunDetail},
        errors=(404, 408, 413, 415, 422),
    ),
    Route(
        method="GET",
        path="/api/workflows/{name}/runs",
        permission="run:read",
        handler=list_workflow_runs,
        summary="List a workflow's runs",
        tag="workflows",
        query=(Query("state", RunState, "Only those in this state."), *PAGED),
        responses={200: WorkflowRunPage},
        errors=(404, 422),
    ),
    Route(
        method="GET",
        path="/api/workflow-runs/{id}",
        permission="run:read",
        handler=get_workflow_run,
        summary="Read a workflow run and where its tasks stand",
        tag="workflows",
        responses={200: WorkflowRunDetail},
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/api/workflow-runs/{id}/cancel",
        permission="run:control",
        handler=cancel_workflow_run,
        summary="Cancel a workflow run and its tasks",
        tag="workflows",
        responses={200: Cancelled, 202: Cancelled},
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path="/api/workflow-runs/{id}/rerun",
        permission="run:control",
        handler=rerun_workflow_run,
        summary="Run again what did not complete of a workflow run",
        tag="workflows",
        responses={200: WorkflowRunDetail},
        errors=(404, 408, 409, 413, 422),
    ),
)
