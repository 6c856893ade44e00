"""One look at a system for `dts top`, and how it is drawn."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scheduler.cli.output import styled, took, when
from scheduler.client import Client, Queue, Run, Worker
from scheduler.wire.health import DeepHealth


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What one look has found; `running` and `failed` are the newest of each."""

    health: DeepHealth
    queues: list[Queue]
    workers: list[Worker]
    running: list[Run]
    failed: list[Run]

    @property
    def at(self) -> datetime:
        """When it was, by the server's clock."""
        return self.health.now


def look(client: Client, rows: int) -> Snapshot:
    """Ask the server."""
    failed = [run for state in ("failed", "dead_letter") for run in islice(client.runs(state=state, page=rows), rows)]
    failed.sort(key=lambda run: run.finished_at or run.created_at, reverse=True)
    return Snapshot(
        health=client.health(),
        queues=list(client.queues()),
        workers=list(client.workers()),
        running=list(islice(client.runs(state="running", page=rows), rows)),
        failed=failed[:rows],
    )


def draw(now: Snapshot, before: Snapshot | None) -> RenderableType:
    """Return what a terminal shows."""
    live = [worker for worker in now.workers if worker.state in ("live", "draining")]
    slots, busy = sum(worker.slots for worker in live), sum(worker.running for worker in live)
    parts = [name for name, part in (now.health.parts | now.health.leader_parts).items() if not part.ok]
    leader = now.health.leader
    led = "nobody leads" if leader is None or leader.holder is None else f"leader {leader.host}:{leader.pid}"
    epoch = "" if leader is None else f" (term {leader.epoch})"
    asked = "  ".join(
        f"{name} {d.seconds * 1000:.1f} ms" if d.seconds is not None else f"{name} away"
        for name, d in now.health.dependencies.items()
    )
    head = Text.assemble(
        f"{when(now.at)}  ", styled(now.health.status), f"  {led}{epoch}  {busy}/{slots} slots busy  {asked}"
    )
    if parts:
        head.append(f"\nnot well: {', '.join(parts)}", style="red")
    return Group(head, _queues(now, before), _workers(now), _runs("running", now.running, now), _failures(now))


def _queues(now: Snapshot, before: Snapshot | None) -> Table:
    table = _table("queue", "state", "pending", "queued", "waiting grows")
    known = {} if before is None else {queue.name: queue for queue in before.queues}
    for queue in now.queues:
        grows = ""
        if before is not None and queue.name in known and now.at > before.at:
            was = known[queue.name]
            more = queue.pending + queue.queued - was.pending - was.queued
            grows = f"{more / (now.at - before.at).total_seconds():+.1f}/s"
        state = "paused" if queue.paused else "open"
        table.add_row(queue.name, styled(state), str(queue.pending), str(queue.queued), grows)
    return table


def _workers(now: Snapshot) -> Table:
    table = _table("worker", "host", "state", "running", "queues", "seen")
    for worker in now.workers:
        seen = f"{took(worker.last_seen, now.at)} ago"
        slots = f"{worker.running}/{worker.slots}"
        table.add_row(
            worker.name, f"{worker.host}:{worker.pid}", styled(worker.state), slots, " ".join(worker.queues), seen
        )
    return table


def _runs(title: str, runs: list[Run], now: Snapshot) -> Table:
    table = _table(title, "run", "queue", "attempt", "for")
    for run in runs:
        table.add_row(run.task_name, str(run.id), run.queue, str(run.attempt), took(run.started_at, now.at))
    return table


def _failures(now: Snapshot) -> Table:
    table = _table("failed lately", "run", "state", "reason", "at")
    for run in now.failed:
        table.add_row(run.task_name, str(run.id), styled(run.state), run.reason or "", when(run.finished_at))
    return table


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=None)
    for head in heads:
        table.add_column(head, no_wrap=True)
    return table
