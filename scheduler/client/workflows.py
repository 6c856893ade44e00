"""Operations on workflows and their runs, without I/O."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from scheduler.client.exchange import Id, Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing
from scheduler.domain.workflows import WorkflowSpec, encode_workflow
from scheduler.wire.runs import Cancelled
from scheduler.wire.workflows import Workflow, WorkflowRun, WorkflowRunDetail, WorkflowStart


def create_workflow(spec: WorkflowSpec) -> Operation[Workflow]:
    """Create a workflow. Raises Conflict if a workflow or a recurring task has its name."""
    return decoded((yield from ask(build("POST", "/api/workflows", body=encode_workflow(spec)))), Workflow)


def workflows(*, page: int | None = None) -> Listing[Workflow]:
    """List workflows by name."""
    return Listing("/api/workflows", Workflow, {"limit": page})


def workflow(name: str) -> Operation[Workflow]:
    """Read one workflow."""
    return decoded((yield from ask(build("GET", path_of("api", "workflows", name)))), Workflow)


def replace_workflow(spec: WorkflowSpec, *, version: int | None = None) -> Operation[Workflow]:
    """Put a new definition in place of the one of that name; runs that have begun keep theirs."""
    request = build("PUT", path_of("api", "workflows", spec.name), body=encode_workflow(spec), version=version)
    return decoded((yield from ask(request)), Workflow)


def delete_workflow(name: str, *, cascade: bool = False) -> Operation[None]:
    """Delete a workflow; `cascade` cancels its live runs and skips what depends on it, else these are a Conflict."""
    query = {"cascade": "cancel" if cascade else None}
    yield from ask(build("DELETE", path_of("api", "workflows", name), query=query))


def start_workflow(name: str, parameters: Mapping[str, str] | None = None) -> Operation[WorkflowRunDetail]:
    """Run a workflow now. A run that its overlap rule refuses comes back `skipped`."""
    body = msgspec.json.encode(WorkflowStart(parameters=dict(parameters or {})))
    return decoded(
        (yield from ask(build("POST", path_of("api", "workflows", name, "runs"), body=body))), WorkflowRunDetail
    )


def workflow_runs(name: str, *, state: str | None = None, page: int | None = None) -> Listing[WorkflowRun]:
    """List the runs of a workflow, newest first."""
    return Listing(path_of("api", "workflows", name, "runs"), WorkflowRun, {"state": state, "limit": page})


def workflow_run(run_id: Id) -> Operation[WorkflowRunDetail]:
    """Read a workflow run with where each of its tasks stands."""
    return decoded((yield from ask(build("GET", path_of("api", "workflow-runs", run_id)))), WorkflowRunDetail)


def cancel_workflow_run(run_id: Id) -> Operation[Cancelled]:
    """Cancel a workflow run and its tasks. Raises Conflict if everything has ended already."""
    return decoded((yield from ask(build("POST", path_of("api", "workflow-runs", run_id, "cancel")))), Cancelled)


def rerun_workflow_run(run_id: Id) -> Operation[WorkflowRunDetail]:
    """Run again what did not complete of an ended workflow run."""
    request = build("POST", path_of("api", "workflow-runs", run_id, "rerun"))
    return decoded((yield from ask(request)), WorkflowRunDetail)
