"""`dts namespace …`: the tenants of an installation, and what each may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import REMOTE, Remote

app = App(name="namespace", help="Make, list, bound and delete namespaces.")

Name = Annotated[str, Parameter(help="Small letters, digits and dashes, 63 at most.")]
MaxPending = Annotated[int | None, Parameter(help="How many runs may wait.")]
MaxTasks = Annotated[int | None, Parameter(help="How many recurring tasks and workflows there may be.")]
SubmitRate = Annotated[float | None, Parameter(help="How many runs a second may be submitted to one API process.")]


@app.command(name="list")
def list_namespaces(*, remote: Remote = REMOTE) -> int:
    """List your namespaces."""
    columns: dict[str, Callable[[Any], object]] = {
        "namespace": lambda n: n.name,
        "max pending": lambda n: n.max_pending,
        "max tasks": lambda n: n.max_tasks,
        "submit rate": lambda n: n.submit_rate,
        "created": lambda n: n.created_at,
        "by": lambda n: n.created_by,
    }
    with remote.connect() as client:
        remote.output().rows(client.namespaces(), columns)
    return exits.OK


@app.command
def create(
    name: Name,
    /,
    *,
    max_pending: MaxPending = None,
    max_tasks: MaxTasks = None,
    submit_rate: SubmitRate = None,
    remote: Remote = REMOTE,
) -> int:
    """Make a namespace. Names are not used twice: what once bore it may still be in its history."""
    from scheduler.wire.access import NewNamespace  # noqa: PLC0415 - not needed for help

    new = NewNamespace(name=name, max_pending=max_pending, max_tasks=max_tasks, submit_rate=submit_rate)
    with remote.connect() as client:
        remote.output().done(client.create_namespace(new), f"{name} created")
    return exits.OK


@app.command
def limit(
    name: Name,
    /,
    *,
    max_pending: MaxPending = None,
    max_tasks: MaxTasks = None,
    submit_rate: SubmitRate = None,
    remote: Remote = REMOTE,
) -> int:
    """Set what a namespace may have; a bound that is not given is taken away."""
    from scheduler.wire.access import Quotas  # noqa: PLC0415 - not needed for help

    quotas = Quotas(max_pending=max_pending, max_tasks=max_tasks, submit_rate=submit_rate)
    with remote.connect() as client:
        remote.output().done(client.set_quotas(name, quotas), f"{name} bounded")
    return exits.OK


@app.command
def delete(name: Name, /, *, remote: Remote = REMOTE) -> int:
    """Delete a namespace that has neither recurring tasks nor live runs."""
    with remote.connect() as client:
        client.delete_namespace(name)
        remote.output().done({"name": name, "result": "deleted"}, f"{name} deleted")
    return exits.OK
