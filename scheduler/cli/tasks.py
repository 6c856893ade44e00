"""`dts task …`: definitions, and what can be done to one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import DASH, FLAG, REMOTE, Remote, failure, find_task, need, say, task_id
from scheduler.cli.following import OnInterrupt, follow
from scheduler.domain.backfill import BackfillOverlap

if TYPE_CHECKING:
    from scheduler.client import Client, Task

app = App(name="task", help="Look at, change, trigger, pause, cancel and delete tasks.")

TaskRef = Annotated[str, Parameter(help="Task: its id, or its name if only one has it.")]
TaskRefs = Annotated[str, Parameter(help="Tasks: ids, or names that only one task has.")]


@app.command(name="list")
def list_tasks(
    *,
    status: Annotated[str | None, Parameter(help="A run state, or scheduled or paused.")] = None,
    queue: Annotated[str | None, Parameter(help="Only in this queue.")] = None,
    tag: Annotated[str | None, Parameter(help="Only with this tag.")] = None,
    name: Annotated[str | None, Parameter(help="Only with this name.")] = None,
    limit: Annotated[int, Parameter(help="At most so many; 0: all.")] = 50,
    remote: Remote = REMOTE,
) -> int:
    """List tasks, newest first."""
    from scheduler.cli.output import at_most, words  # noqa: PLC0415 - not needed for help

    columns: dict[str, Callable[[Task], object]] = {
        "task": lambda t: t.id,
        "name": lambda t: t.name,
        "status": lambda t: t.status,
        "schedule": lambda t: t.schedule,
        "next fire": lambda t: t.next_fire_at,
        "last run": lambda t: t.last_run and t.last_run.state,
        "command": lambda t: words(t.command)[:60],
    }
    with remote.connect() as client:
        tasks = client.tasks(status=status, queue=queue, tag=tag, name=name, page=min(limit or 1000, 1000))
        remote.output().rows(at_most(tasks, limit), columns, empty="no such tasks")
    return exits.OK


@app.command
def show(task: TaskRef, /, *, remote: Remote = REMOTE) -> int:
    """Show a task: what was defined, leaving out defaults, and where it stands."""
    from scheduler.cli.definitions import said  # noqa: PLC0415 - not needed for help

    fields: dict[str, Callable[[Task], object]] = {
        "task": lambda t: t.id,
        "status": lambda t: t.status + (", paused" if t.paused and t.status != "paused" else ""),
        "version": lambda t: f"{t.version} by {t.updated_by}" if t.updated_by else t.version,
        "created": lambda t: t.created_at,
        "next fire": lambda t: t.next_fire_at,
        "last run": lambda t: t.last_run and f"{t.last_run.id}  {t.last_run.state}",
        "reason": lambda t: t.last_run and t.last_run.reason,
    }
    with remote.connect() as client:
        found = find_task(client, task)
        defined = {name: _field(name) for name in said(found)}
        remote.output().one(found, {**fields, **defined})
    return exits.OK


@app.command
def edit(
    task: TaskRef,
    /,
    *,
    changes: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative=(),
            show_default=False,
            help="FIELD=VALUE, as JSON or text; an empty one takes the default.",
        ),
    ] = (),
    file: Annotated[
        Path | None,
        DASH,
        Parameter(name=("--file", "-f"), help="JSON merge patch: null for the default; - for stdin."),
    ] = None,
    remote: Remote = REMOTE,
) -> int:
    """Change a task. Without `--set` or `--file`, in $EDITOR.

    What waits follows the new definition; what executes ends under the old one. If somebody else has changed the
    task meanwhile, nothing is changed.

    For example: `dts task edit backup --set timeout=2h --set 'retry={"max_attempts": 3}'`
    """
    from scheduler.cli import definitions  # noqa: PLC0415 - not needed for help

    with remote.connect() as client:
        found = find_task(client, task)
        if changes or file is not None:
            patch = {**({} if file is None else definitions.read_patch(file)), **definitions.assignments(changes)}
            changed = client.edit_task(found.id, patch, version=found.version)
        else:
            spec = definitions.edited(found)
            changed = found if spec is None else client.replace_task(found.id, spec, version=found.version)
        same = changed.version == found.version
        remote.output().done(
            changed, "nothing to change" if same else f"{changed.name} is at version {changed.version}"
        )
    return exits.OK


@app.command
def pause(*tasks: TaskRefs, remote: Remote = REMOTE) -> int:
    """Stop tasks from firing, and hold their waiting runs; what executes goes on."""
    return _each(tasks, remote, lambda client, reference: client.pause_task(reference), lambda t: f"{t.name} paused")


@app.command
def resume(*tasks: TaskRefs, remote: Remote = REMOTE) -> int:
    """Let paused tasks fire again; what fell due meanwhile is judged by their catchup rule."""

    def text(task: Task) -> str:
        return f"{task.name} resumed" + (f", next at {task.next_fire_at}" if task.next_fire_at else "")

    return _each(tasks, remote, lambda client, reference: client.resume_task(reference), text)


@app.command
def cancel(*tasks: TaskRefs, remote: Remote = REMOTE) -> int:
    """Cancel every live run of tasks; recurring ones go on firing (`dts task pause` stops that)."""

    def text(done: Any) -> str:
        return f"{len(done.cancelled)} runs cancelled, {len(done.requested)} asked to end"

    return _each(tasks, remote, lambda client, reference: client.cancel_task(reference), text)


@app.command
def delete(
    *tasks: TaskRefs,
    cascade: Annotated[bool, FLAG, Parameter(help="Cancel what still runs, and skip what depends on it.")] = False,
    remote: Remote = REMOTE,
) -> int:
    """Delete tasks; their history stays until retention takes it."""

    def remove(client: Client, reference: str) -> dict[str, str]:
        client.delete_task(reference, cascade=cascade)
        return {"id": reference, "result": "deleted"}

    return _each(tasks, remote, remove, lambda done: f"{done['id']} deleted")


@app.command
def trigger(
    task: TaskRef,
    /,
    *,
    wait: Annotated[
        bool,
        FLAG,
        Parameter(name=("--wait", "-w"), help="Show its output as it comes; exit with its exit code."),
    ] = False,
    on_interrupt: OnInterrupt = "ask",
    remote: Remote = REMOTE,
) -> int:
    """Run a task now, whether it is paused or not; its overlap rule is obeyed (exit 1 if that refuses the run)."""
    with remote.connect() as client:
        run = client.trigger(task_id(client, task))
    if wait:
        say(f"run {run.id}")
        return follow(remote, str(run.id), on_interrupt=on_interrupt)
    remote.output().done(run, f"run {run.id} {run.state}" + (f": {run.reason}" if run.reason else ""))
    return exits.FAILURE if run.state == "skipped" else exits.OK


@app.command
def plan(
    task: TaskRef,
    /,
    *,
    count: Annotated[int, Parameter(name=("--count", "-n"), help="How many fires.")] = 10,
    remote: Remote = REMOTE,
) -> int:
    """Show when a task will fire, with what daylight saving does to it, and how many tasks fire in the same minute."""
    columns: dict[str, Callable[[Any], object]] = {
        "local": lambda f: f.local,
        "UTC": lambda f: f.at.strftime("%Y-%m-%d %H:%M:%S"),
        "load": lambda f: f.load,
        "note": lambda f: f.note,
    }
    with remote.connect() as client:
        fires = client.plan(task_id(client, task), n=count)
        remote.output().rows(fires, columns, empty="it will not fire")
    return exits.OK


@app.command
def backfill(
    task: TaskRef,
    /,
    *,
    start: Annotated[str, Parameter(name="--from", help="First fire: RFC 3339, or a date (midnight UTC).")],
    end: Annotated[str, Parameter(name="--to", help="Last fire, included: RFC 3339, or a date (midnight UTC).")],
    cap: Annotated[int, Parameter(help="Look at so many fires at most, oldest first; up to 500.")] = 100,
    overlap: Annotated[BackfillOverlap | None, Parameter(help="Obey this rule instead of running one by one.")] = None,
    dry_run: Annotated[bool, FLAG, Parameter(help="Only show what would be run.")] = False,
    remote: Remote = REMOTE,
) -> int:
    """Make runs for planned fires that have passed; those that have a run of their own keep it."""
    columns: dict[str, Callable[[Any], object]] = {
        "fire": lambda i: i.scheduled_for,
        "result": lambda i: "would run" if dry_run and i.result == "run" else i.result,
        "run": lambda i: i.run_id,
        "reason": lambda i: i.reason,
    }
    with remote.connect() as client:
        done = client.backfill(
            task_id(client, task), _moment(start), _moment(end), cap=cap, overlap=overlap, dry_run=dry_run
        )
        remote.output().rows(done.items, columns, empty="no fires in this range")
        if done.next_from is not None:
            say(f"there are more: go on with --from {done.next_from:%Y-%m-%dT%H:%M:%SZ}")
    return exits.OK


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise failure(f"{text!r} is no moment: write 2026-01-31 or 2026-01-31T08:00:00Z", exits.USAGE) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _field(name: str) -> Callable[[Any], object]:
    from scheduler.cli.definitions import shown  # noqa: PLC0415 - not needed for help

    return lambda task: shown(getattr(task, name))


def _each(
    references: tuple[str, ...],
    remote: Remote,
    act: Callable[[Client, str], Any],
    text: Callable[[Any], str],
) -> int:
    """Do something to each task, in order; the first failure ends it."""
    need(references, "tasks")
    with remote.connect() as client:
        out = remote.output()
        for reference in references:
            done = act(client, task_id(client, reference))
            out.done(done, text(done))
    return exits.OK
