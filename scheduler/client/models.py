"""What the API answers, beyond the domain's own structs; fields that a newer server adds are ignored."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from scheduler.domain.blockers import Blocker
from scheduler.domain.run import RunState
from scheduler.domain.task import TaskSpec


class LastRun(msgspec.Struct, kw_only=True, frozen=True):
    """The newest run of a task, in short."""

    id: UUID
    state: RunState
    reason: str | None = None
    scheduled_for: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    attempt: int = 0


class Task(TaskSpec, kw_only=True, frozen=True, forbid_unknown_fields=False, omit_defaults=False):
    """A stored task: what its user said, and where it stands. `version` goes into `If-Match`.

    `status` is the newest run's state, or `scheduled` or `paused` for a recurring task between runs.
    """

    id: UUID
    namespace: str
    status: str
    version: int
    created_at: datetime
    updated_at: datetime
    created_by: str = ""
    updated_by: str = ""
    paused: bool = False
    next_fire_at: datetime | None = None
    last_run: LastRun | None = None


class Created(msgspec.Struct, kw_only=True, frozen=True):
    """What became of one submitted task; a recurring one has no run yet."""

    id: UUID
    run_id: UUID | None = None


class Cancelled(msgspec.Struct, kw_only=True, frozen=True):
    """Runs that ended at once, and executing ones that were asked to."""

    cancelled: list[UUID]
    requested: list[UUID]


class PlannedFire(msgspec.Struct, kw_only=True, frozen=True):
    """One coming fire: `at` in UTC, `local` in the task's zone, `note` on daylight saving.

    `load` counts the tasks that fire in the same minute.
    """

    at: datetime
    local: str
    note: str | None = None
    load: int | None = None


class Explanation(msgspec.Struct, kw_only=True, frozen=True):
    """Why a run is not running: every blocker that stands now."""

    run_id: UUID
    state: RunState
    blockers: list[Blocker]


class FenceCheck(msgspec.Struct, kw_only=True, frozen=True):
    """Whether a fence still holds, and which one does (None: no attempt executes)."""

    valid: bool
    current: int | None


class Worker(msgspec.Struct, kw_only=True, frozen=True):
    """A worker that is there, or that went in the last hour."""

    id: UUID
    host: str
    pid: int
    queues: list[str]
    slots: int
    running: int
    executors: list[str]
    labels: dict[str, str]
    containment: str
    state: str
    last_seen: datetime
    name: str = ""
    version: str = ""
    end_reason: str | None = None


class Queue(msgspec.Struct, kw_only=True, frozen=True):
    """A queue: runs that wait to be queued, and queued ones that wait for a worker (counted up to a bound)."""

    name: str
    paused: bool
    pending: int
    queued: int


class QueueState(msgspec.Struct, kw_only=True, frozen=True):
    """Whether a queue is paused now."""

    name: str
    paused: bool


class DeadLetter(msgspec.Struct, kw_only=True, frozen=True):
    """A run that used up its budget, waiting for somebody to decide."""

    id: UUID
    run_id: UUID
    task_id: UUID
    task_name: str
    queue: str
    reason: str
    attempt: int
    failures: int
    losses: int
    exit_code: int | None
    output_tail: str | None
    state: str
    created_at: datetime


class Decided(msgspec.Struct, kw_only=True, frozen=True):
    """What became of one dead letter; where it was refused, `code` says why."""

    id: UUID
    run_id: UUID | None
    result: Literal["replayed", "discarded", "refused"]
    code: str | None = None


class Readiness(msgspec.Struct, kw_only=True, frozen=True):
    """Whether work is accepted, and whether it would also be run."""

    status: str
    leader: bool = False
    workers: int = 0
