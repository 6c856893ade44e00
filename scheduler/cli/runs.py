"""`dts run …`: what became of tasks, one occurrence at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import REMOTE, Remote, need, task_id

if TYPE_CHECKING:
    from scheduler.client import Run

app = App(name="run", help="Look at runs, cancel them, run them again, ask why one does not run.")

RunIds = Annotated[str, Parameter(help="Run ids.")]


@app.command(name="list")
def list_runs(
    *,
    task: Annotated[str | None, Parameter(help="Only of this task (id or name).")] = None,
    state: Annotated[str | None, Parameter(help="Only in this state, such as running or failed.")] = None,
    queue: Annotated[str | None, Parameter(help="Only in this queue.")] = None,
    limit: Annotated[int, Parameter(help="At most so many; 0: all.")] = 50,
    remote: Remote = REMOTE,
) -> int:
    """List runs, newest first."""
    from scheduler.cli.output import at_most, took  # noqa: PLC0415 - not needed for help

    with remote.connect() as client:
        task = None if task is None else task_id(client, task)
        runs = client.runs(task=task, state=state, queue=queue, page=min(limit or 1000, 1000))
        columns: dict[str, Callable[[Run], object]] = {
            "run": lambda r: r.id,
            "task": lambda r: r.task_name,
            "state": lambda r: r.state,
            "reason": lambda r: r.reason,
            "started": lambda r: r.started_at,
            "took": lambda r: took(r.started_at, r.finished_at),
            "attempt": lambda r: r.attempt,
        }
        remote.output().rows(at_most(runs, limit), columns, empty="no such runs")
    return exits.OK


@app.command
def show(run: Annotated[str, Parameter(help="Run id.")], /, *, remote: Remote = REMOTE) -> int:
    """Show everything about a run."""
    with remote.connect() as client:
        remote.output().one(client.run(run), FIELDS)
    return exits.OK


@app.command
def attempts(run: Annotated[str, Parameter(help="Run id.")], /, *, remote: Remote = REMOTE) -> int:
    """List every attempt of a run: which worker, under which fence, and how it ended."""
    from scheduler.cli.output import took  # noqa: PLC0415 - not needed for help

    columns: dict[str, Callable[[Any], object]] = {
        "attempt": lambda a: a.attempt,
        "outcome": lambda a: a.outcome or "executing",
        "reason": lambda a: a.reason,
        "worker": lambda a: a.worker_id,
        "fence": lambda a: a.fence,
        "started": lambda a: a.started_at,
        "took": lambda a: took(a.started_at, a.finished_at),
        "version": lambda a: a.task_version,
    }
    with remote.connect() as client:
        remote.output().rows(client.attempts(run), columns, empty="it has not been attempted yet")
    return exits.OK


@app.command
def explain(run: Annotated[str, Parameter(help="Run id.")], /, *, remote: Remote = REMOTE) -> int:
    """Say why a run is not running: everything that stands in its way now."""
    with remote.connect() as client:
        explanation = client.explain(run)
        out = remote.output()
        if not out.pretty:
            out.data(explanation)
            return exits.OK
        out.rows(
            explanation.blockers,
            {"blocker": lambda b: b.code, "until": lambda b: b.until, "": lambda b: b.detail},
            empty="nothing",
        )
    return exits.OK


@app.command
def cancel(*runs: RunIds, remote: Remote = REMOTE) -> int:
    """Cancel runs; one that executes is asked to end by its kill signal."""
    need(runs, "runs")
    with remote.connect() as client:
        out = remote.output()
        for run in runs:
            cancelled = client.cancel_run(run)
            out.done(cancelled, f"{run} " + ("is asked to end" if cancelled.requested else "cancelled"))
    return exits.OK


@app.command
def retry(*runs: RunIds, remote: Remote = REMOTE) -> int:
    """Run ended runs again, now, with fresh budgets and their tasks' present definitions."""
    need(runs, "runs")
    with remote.connect() as client:
        out = remote.output()
        for run in runs:
            revived = client.retry_run(run)
            out.done(revived, f"{run} {revived.state}")
    return exits.OK


@app.command
def wait(
    run: Annotated[str, Parameter(help="Run id.")],
    /,
    *,
    timeout: Annotated[float | None, Parameter(help="Seconds after which to give up (exit 75).")] = None,
    remote: Remote = REMOTE,
) -> int:
    """Wait until a run has ended; exit with its command's exit code."""
    from scheduler.cli.following import exit_code_of  # noqa: PLC0415 - not needed for help

    with remote.connect() as client:
        client.run(run)
    with remote.connect(patient=True) as client:
        ended = client.wait(run, timeout=timeout)
        remote.output().done(ended, f"{run} {ended.state}" + (f": {ended.reason}" if ended.reason else ""))
        return exit_code_of(ended)


FIELDS: dict[str, Callable[[Any], object]] = {
    "run": lambda r: r.id,
    "task": lambda r: f"{r.task_name}  ({r.task_id})",
    "state": lambda r: r.state,
    "reason": lambda r: r.reason,
    "exit code": lambda r: r.exit_code,
    "cancel asked": lambda r: r.cancel_requested or None,
    "trigger": lambda r: r.trigger,
    "planned for": lambda r: r.scheduled_for,
    "due": lambda r: r.run_at,
    "queued": lambda r: r.queued_at,
    "started": lambda r: r.started_at,
    "finished": lambda r: r.finished_at,
    "queue": lambda r: f"{r.queue}, priority {r.priority}",
    "attempts": lambda r: f"{r.attempt} ({r.failures} of {r.max_attempts} failures spent, {r.losses} workers lost)",
    "worker": lambda r: r.worker_id,
    "trace": lambda r: r.trace_id,
    "outputs": lambda r: None if r.outputs is None else bytes(r.outputs).decode(),
    "output": lambda r: (r.output_tail or "").rstrip(),
}
