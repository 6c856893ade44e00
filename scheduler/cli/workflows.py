"""`dts workflow …`: named DAGs of tasks, and their runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import DASH, FLAG, REMOTE, Remote, failure, say

if TYPE_CHECKING:
    from scheduler.wire.workflows import Workflow, WorkflowRun, WorkflowRunDetail

app = App(name="workflow", help="Create, look at, run and delete workflows; look at, cancel and rerun their runs.")

WorkflowName = Annotated[str, Parameter(help="Name of the workflow.")]
WorkflowRunId = Annotated[str, Parameter(help="Id of the workflow run.")]


@app.command
def create(
    *,
    file: Annotated[Path, DASH, Parameter(name=("--file", "-f"), help="JSON: the workflow; - for stdin.")],
    replace: Annotated[bool, FLAG, Parameter(help="Put it in place of the one of its name, if there is one.")] = False,
    remote: Remote = REMOTE,
) -> int:
    """Create a workflow from a file: `name`, `tasks` that depend on each other by name, `schedule`, `parameters`."""
    import msgspec  # noqa: PLC0415 - not needed for help

    from scheduler.client import NotFound  # noqa: PLC0415
    from scheduler.domain.workflows import decode_workflow  # noqa: PLC0415

    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        spec = decode_workflow(data)
    except (OSError, msgspec.MsgspecError) as error:
        raise failure(f"{file}: {error}", exits.USAGE) from None
    with remote.connect() as client:
        made: Workflow | None = None
        if replace:
            try:
                made = client.replace_workflow(spec)
            except NotFound:
                made = None
        made = made or client.create_workflow(spec)
    remote.output().done(made, f"workflow {made.name} is at version {made.version}")
    return exits.OK


@app.command(name="list")
def list_workflows(*, remote: Remote = REMOTE) -> int:
    """List workflows by name."""
    columns: dict[str, Callable[[Workflow], object]] = {
        "workflow": lambda w: w.name,
        "tasks": lambda w: len(w.tasks),
        "version": lambda w: w.version,
        "schedule": lambda w: w.schedule,
        "next fire": lambda w: w.next_fire_at,
        "paused": lambda w: "paused" if w.paused else None,
    }
    with remote.connect() as client:
        remote.output().rows(client.workflows(), columns, empty="no workflows")
    return exits.OK


@app.command
def show(name: WorkflowName, /, *, remote: Remote = REMOTE) -> int:
    """Show the tasks of a workflow, and what each waits for."""
    columns: dict[str, Callable[[Any], object]] = {
        "task": lambda t: t.name,
        "after": lambda t: ", ".join(d.task if d.on == "success" else f"{d.task} ({d.on})" for d in t.depends_on),
        "command": lambda t: t.command if isinstance(t.command, str) else " ".join(t.command),
    }
    with remote.connect() as client:
        found = client.workflow(name)
        out = remote.output()
        if out.pretty:
            out.rows(found.tasks, columns)
        else:
            out.data(found)
    return exits.OK


@app.command
def delete(
    name: WorkflowName,
    /,
    *,
    cascade: Annotated[bool, FLAG, Parameter(help="Cancel what still runs, and skip what depends on it.")] = False,
    remote: Remote = REMOTE,
) -> int:
    """Delete a workflow; the history of its runs stays until retention takes it."""
    with remote.connect() as client:
        client.delete_workflow(name, cascade=cascade)
    remote.output().done({"name": name, "result": "deleted"}, f"{name} deleted")
    return exits.OK


@app.command
def run(
    name: WorkflowName,
    /,
    *,
    parameters: Annotated[
        tuple[str, ...],
        Parameter(name=("--parameter", "-p"), negative=(), show_default=False, help="NAME=VALUE; may be repeated."),
    ] = (),
    remote: Remote = REMOTE,
) -> int:
    """Run a workflow now; its overlap rule is obeyed (exit 1 if that refuses the run)."""
    given = {}
    for text in parameters:
        key, equals, value = text.partition("=")
        if not equals:
            raise failure(f"--parameter {text!r}: write NAME=VALUE", exits.USAGE)
        given[key] = value
    with remote.connect() as client:
        made = client.start_workflow(name, given)
    remote.output().done(made, f"workflow run {made.id} {made.state}" + (f": {made.reason}" if made.reason else ""))
    return exits.FAILURE if made.state == "skipped" else exits.OK


@app.command
def runs(
    name: WorkflowName,
    /,
    *,
    state: Annotated[str | None, Parameter(help="Only in this state.")] = None,
    limit: Annotated[int, Parameter(help="At most so many; 0: all.")] = 50,
    remote: Remote = REMOTE,
) -> int:
    """List the runs of a workflow, newest first."""
    from scheduler.cli.output import at_most  # noqa: PLC0415 - not needed for help

    columns: dict[str, Callable[[WorkflowRun], object]] = {
        "workflow run": lambda r: r.id,
        "state": lambda r: r.state,
        "reason": lambda r: r.reason,
        "version": lambda r: r.version,
        "by": lambda r: r.trigger,
        "for": lambda r: r.scheduled_for,
        "started": lambda r: r.started_at,
        "finished": lambda r: r.finished_at,
    }
    with remote.connect() as client:
        found = client.workflow_runs(name, state=state, page=min(limit or 1000, 1000))
        remote.output().rows(at_most(found, limit), columns, empty="no such runs")
    return exits.OK


@app.command
def status(workflow_run: WorkflowRunId, /, *, remote: Remote = REMOTE) -> int:
    """Show where each task of a workflow run stands."""
    with remote.connect() as client:
        return _show(client.workflow_run(workflow_run), remote)


@app.command
def cancel(workflow_run: WorkflowRunId, /, *, remote: Remote = REMOTE) -> int:
    """Cancel a workflow run and its tasks."""
    with remote.connect() as client:
        done = client.cancel_workflow_run(workflow_run)
    remote.output().done(done, f"{len(done.cancelled)} runs cancelled, {len(done.requested)} asked to end")
    return exits.OK


@app.command
def rerun(workflow_run: WorkflowRunId, /, *, remote: Remote = REMOTE) -> int:
    """Run again what did not complete of an ended workflow run; what completed stands."""
    with remote.connect() as client:
        return _show(client.rerun_workflow_run(workflow_run), remote)


def _show(found: WorkflowRunDetail, remote: Remote) -> int:
    columns: dict[str, Callable[[Any], object]] = {
        "task": lambda n: n.name,
        "state": lambda n: n.state,
        "reason": lambda n: n.reason,
        "attempt": lambda n: n.attempt,
        "started": lambda n: n.started_at,
        "finished": lambda n: n.finished_at,
        "run": lambda n: n.run_id,
    }
    out = remote.output()
    if out.pretty:
        say(f"{found.workflow} {found.state}" + (f": {found.reason}" if found.reason else ""))
        out.rows(found.nodes, columns, empty="it has not begun")
    else:
        out.data(found)
    return exits.OK
