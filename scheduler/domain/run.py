"""Runs and their states.

    pending → queued → running → completed | failed | cancelled | dead_letter
       ↑________________|   a failed, lost or requeued attempt with budget left goes back, with a later run_at

`TRANSITIONS` is the whole machine, with the runs that end before they begin; the statements in `scheduler/store/sql`
are its only writers, each headed by the transitions it makes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

RunState = Literal["pending", "queued", "running", "completed", "failed", "cancelled", "skipped", "dead_letter"]

LIVE: frozenset[str] = frozenset({"pending", "queued", "running"})
TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled", "skipped", "dead_letter"})

TRANSITIONS: dict[str, frozenset[str]] = {
    "pending": frozenset({"queued", "completed", "cancelled", "skipped", "failed"}),  # see below
    "queued": frozenset({"running", "pending", "cancelled", "skipped", "failed"}),
    "running": frozenset({"completed", "failed", "cancelled", "pending", "dead_letter"}),
    "completed": frozenset(),
    "failed": frozenset({"pending"}),  # revived by retry, with fresh budgets
    "cancelled": frozenset({"pending"}),
    "skipped": frozenset({"pending"}),
    "dead_letter": frozenset({"pending"}),  # revived by replay
}

"""A run fails while it is pending if its `schedule_timeout` has passed. The runs of workflows are never queued: they
wait, pending, for the runs of their tasks, and then complete or fail."""

Trigger = Literal["once", "schedule", "manual", "backfill"]


class Run(msgspec.Struct, kw_only=True, frozen=True):
    """A run as the API shows it. Times are UTC; `attempt` counts executions and is never reused.

    `failures` and `losses` are spent from separate budgets. `outputs` is what the command wrote to `$DTS_OUTPUT_FILE`;
    `output_tail` the last of what it printed.
    """

    id: UUID
    task_id: UUID
    namespace: str
    task_name: str
    state: RunState
    reason: str | None
    trigger: Trigger
    scheduled_for: datetime | None
    run_at: datetime
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    attempt: int
    max_attempts: int
    exit_code: int | None
    failures: int
    losses: int
    worker_id: UUID | None
    outputs: msgspec.Raw | None
    output_tail: str | None
    priority: int
    queue: str
    trace_id: str | None
    cancel_requested: bool
    version: int


class Attempt(msgspec.Struct, kw_only=True, frozen=True):
    """One execution of a run's command by one worker, under one fence. `outcome` is None while it executes."""

    run_id: UUID
    attempt: int
    fence: int
    worker_id: UUID
    outcome: Literal["completed", "failed", "cancelled", "lost", "requeued"] | None
    reason: str | None
    exit_code: int | None
    started_at: datetime
    finished_at: datetime | None
    task_version: int


class Claim(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """What a worker receives with a claimed run: the fence, the budgets spent so far, and the task as it stands now.

    `spec` is the stored JSON of a TaskSpec. `first_started_at` dates the first attempt since the run was created or
    revived (`retry.max_elapsed` counts from it). `suspect` marks a run that died together with others.
    """

    run_id: UUID
    task_id: UUID
    namespace: str
    fence: int
    attempt: int
    failures: int
    losses: int
    suspect: bool
    scheduled_for: datetime | None
    started_at: datetime
    first_started_at: datetime
    traceparent: str | None
    has_checkpoint: bool
    spec: bytes


class Outcome(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """What a worker reports of one attempt. The store applies it only if `fence` is still the run's.

    `state` is what the run becomes: terminal, or `pending` with `retry_in` seconds to wait. `attempt_outcome` is what
    the attempt's own record says (`requeued` spends nothing). `output_tail` is UTF-8 text; `outputs` is JSON.
    """

    run_id: UUID
    fence: int
    state: RunState
    attempt_outcome: Literal["completed", "failed", "cancelled", "lost", "requeued"]
    reason: str | None
    exit_code: int | None = None
    retry_in: float = 0.0
    started_at: datetime
    finished_at: datetime
    outputs: bytes | None = None
    output_tail: str | None = None


class Queued(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A run that has just become `queued`, with all that the broker needs to offer it."""

    run_id: UUID
    lane: str
    priority: int
    run_at: datetime
    seq: int
    traceparent: str | None
