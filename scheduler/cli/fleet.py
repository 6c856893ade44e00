"""`dts worker list|drain` and `dts queue …`: what executes, and what waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import REMOTE, Remote, failure, need

if TYPE_CHECKING:
    from scheduler.client import Client

workers = App(name="list")
drain = App(name="drain")
queues = App(name="queue", help="Look at queues, pause and resume them.")

QueueNames = Annotated[str, Parameter(help="Queue names.")]


@workers.default
def list_workers(*, remote: Remote = REMOTE) -> int:
    """List the workers that are there, and those that went in the last hour."""
    columns: dict[str, Callable[[Any], object]] = {
        "worker": lambda w: w.id,
        "host": lambda w: f"{w.host}:{w.pid}",
        "state": lambda w: w.state,
        "running": lambda w: f"{w.running}/{w.slots}",
        "queues": lambda w: w.queues,
        "executors": lambda w: w.executors,
        "labels": lambda w: w.labels,
        "containment": lambda w: w.containment,
        "last seen": lambda w: w.last_seen,
    }
    with remote.connect() as client:
        remote.output().rows(client.workers(), columns, empty="no workers; start one with `dts worker`")
    return exits.OK


@drain.default
def drain_workers(
    *references: Annotated[str, Parameter(help="Worker ids; the first part is enough if only one begins so.")],
    remote: Remote = REMOTE,
) -> int:
    """Let workers finish what they run, take nothing more, and leave.

    They stay away until somebody starts them: `systemctl start dts-worker@1`, `dts worker`, or `dts up` once more.
    """
    need(references, "workers")
    with remote.connect() as client:
        out = remote.output()
        for reference in references:
            worker = _worker(client, reference)
            client.drain_worker(worker)
            out.done({"id": worker, "draining": True}, f"{worker} drains")
    return exits.OK


@queues.command(name="list")
def list_queues(*, remote: Remote = REMOTE) -> int:
    """List queues with what waits in them (counted up to 10,000)."""
    columns: dict[str, Callable[[Any], object]] = {
        "queue": lambda q: q.name,
        "state": lambda q: "paused" if q.paused else "open",
        "pending": lambda q: q.pending,
        "queued": lambda q: q.queued,
    }
    with remote.connect() as client:
        remote.output().rows(client.queues(), columns, empty="no queue has been used yet")
    return exits.OK


@queues.command
def pause(*names: QueueNames, remote: Remote = REMOTE) -> int:
    """Start nothing more from queues; what executes goes on."""
    need(names, "queues")
    with remote.connect() as client:
        out = remote.output()
        for name in names:
            out.done(client.pause_queue(name), f"{name} paused")
    return exits.OK


@queues.command
def resume(*names: QueueNames, remote: Remote = REMOTE) -> int:
    """Let paused queues go on."""
    need(names, "queues")
    with remote.connect() as client:
        out = remote.output()
        for name in names:
            out.done(client.resume_queue(name), f"{name} open")
    return exits.OK


def _worker(client: Client, reference: str) -> str:
    found = [str(worker.id) for worker in client.workers() if str(worker.id).startswith(reference)]
    if len(found) != 1:
        what = "several workers begin" if found else "no worker begins"
        raise failure(f"{what} with {reference!r}; `dts worker list` shows what there is")
    return found[0]
