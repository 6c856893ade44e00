"""Why a run is not running: every blocker that stands in its way now, each with a stable code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from scheduler.domain.run import TERMINAL, RunState

LEADER_SILENT_AFTER = 20.0
"""Seconds without a renewal after which no leader is to be counted on: no longer term can be set."""

BlockerCode = Literal[
    "ended", "running", "dependency", "time", "retry_backoff", "task_paused", "queue_paused", "no_worker", "capacity",
    "concurrency", "rate_limit", "no_leader", "promotion",
]  # fmt: skip


class UnmetDependency(msgspec.Struct, kw_only=True, frozen=True):
    """A condition that does not hold yet."""

    task_id: UUID
    task_name: str | None
    run_id: UUID | None
    fire: datetime | None
    condition: str
    upstream_state: str | None


class WorkerFacts(msgspec.Struct, kw_only=True, frozen=True):
    """One worker that is there; `reads` says whether it takes this kind of run, `free` counts slots."""

    id: UUID
    reads: bool
    draining: bool
    free: int


class Facts(msgspec.Struct, kw_only=True, frozen=True):
    """All that can keep a run from running, read at one moment. `ahead` counts queued runs that go first.

    `carrier`: it is a run of a workflow, which waits for its tasks and for no worker.
    """

    now: datetime
    state: RunState
    reason: str | None
    run_at: datetime
    start_before: datetime | None
    attempt: int
    held: bool
    task_paused: bool
    cancel_requested: bool
    worker_id: UUID | None
    queue: str
    queue_paused: bool
    ahead: int
    dependencies: Sequence[UnmetDependency]
    workers: Sequence[WorkerFacts]
    concurrency_key: str | None
    concurrency_max: int | None
    concurrency_active: int | None
    rate_key: str | None
    rate_n: int | None
    rate_used: int | None
    rate_free_in: float | None
    carrier: bool
    leader_silent: float | None


class Blocker(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One reason. `code` is stable; the other fields say more where they apply (`seconds`: it passes by itself)."""

    code: BlockerCode
    detail: str
    until: datetime | None = None
    seconds: float | None = None
    task_id: UUID | None = None
    run_id: UUID | None = None
    worker_id: UUID | None = None
    key: str | None = None
    ahead: int | None = None
    free_slots: int | None = None
    workers: int | None = None


def blockers(facts: Facts) -> list[Blocker]:
    """Return every live blocker, those first that somebody has to remove."""
    if facts.state in TERMINAL:
        because = f", because {facts.reason}" if facts.reason else ""
        return [Blocker(code="ended", detail=f"the run has ended: {facts.state}{because}")]
    if facts.state == "running":
        detail = "the run is executing" + (", and was asked to end" if facts.cancel_requested else "")
        return [Blocker(code="running", detail=detail, worker_id=facts.worker_id)]
    found = [*_held_up(facts), *(() if facts.carrier else _no_room(facts))]
    if facts.state == "pending" and all(b.code in ("capacity", "no_worker") for b in found):
        found += _leader(facts)
    return found


def _held_up(facts: Facts) -> Iterator[Blocker]:
    if facts.held:
        yield Blocker(code="task_paused", detail="its task is paused")
    if facts.queue_paused and not facts.carrier:
        yield Blocker(code="queue_paused", detail=f"the queue {facts.queue!r} is paused", key=facts.queue)
    for d in facts.dependencies:
        what = f"run {d.run_id}" if d.run_id else f"the fire at {d.fire}"
        name = d.task_name or str(d.task_id)
        now = f", which is {d.upstream_state}" if d.upstream_state else ", which has not been made yet"
        yield Blocker(
            code="dependency",
            detail=f"waits for {d.condition} of {name!r} ({what}{now})",
            task_id=d.task_id,
            run_id=d.run_id,
            until=d.fire,
        )
    if facts.run_at > facts.now:
        backoff = facts.attempt > 0
        yield Blocker(
            code="retry_backoff" if backoff else "time",
            detail=f"waits before attempt {facts.attempt + 1}" if backoff else "its time has not come",
            until=facts.run_at,
            seconds=(facts.run_at - facts.now).total_seconds(),
        )
    active, most = facts.concurrency_active, facts.concurrency_max
    if facts.state == "pending" and active is not None and most is not None and active >= most:
        yield Blocker(
            code="concurrency",
            detail=f"{active} of {most} runs with the key {facts.concurrency_key!r} are queued or running",
            key=facts.concurrency_key,
        )
    used, n = facts.rate_used, facts.rate_n
    if facts.state == "pending" and used is not None and n is not None and used >= n:
        yield Blocker(
            code="rate_limit",
            detail=f"{used} of {n} starts with the key {facts.rate_key!r} are taken",
            key=facts.rate_key,
            seconds=facts.rate_free_in,
        )


def _no_room(facts: Facts) -> Iterator[Blocker]:
    readers = [worker for worker in facts.workers if worker.reads]
    taking = [worker for worker in readers if not worker.draining]
    if not taking:
        reason = "every one is draining" if readers else f"{len(facts.workers)} live, none of them fits"
        yield Blocker(
            code="no_worker",
            detail=f"no worker takes runs like this from the queue {facts.queue!r} ({reason})",
            key=facts.queue,
            workers=len(facts.workers),
        )
        return
    free = sum(worker.free for worker in taking)
    if free <= facts.ahead:
        yield Blocker(
            code="capacity",
            detail=f"{facts.ahead} queued runs go first, and {free} slots are free on {len(taking)} workers",
            ahead=facts.ahead,
            free_slots=free,
            workers=len(taking),
        )


def _leader(facts: Facts) -> Iterator[Blocker]:
    if facts.leader_silent is None or facts.leader_silent > LEADER_SILENT_AFTER:
        yield Blocker(code="no_leader", detail="no scheduler leads, and this run needs one to be queued")
    else:
        yield Blocker(code="promotion", detail="nothing blocks it: the leader will queue it in a moment")
