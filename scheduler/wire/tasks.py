"""Tasks as they are shown, and what is planned for them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from scheduler.domain.run import RunState
from scheduler.domain.task import TaskSpec

TaskStatus = RunState | Literal["scheduled", "paused"]


class LastRun(msgspec.Struct, kw_only=True, frozen=True):
    """The newest run of a task, in short."""

    id: UUID
    state: RunState
    reason: str | None
    scheduled_for: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    attempt: int


class Task(TaskSpec, kw_only=True, frozen=True, forbid_unknown_fields=False, omit_defaults=False):
    """A task: everything that its user defined, defaults included, and what became of it.

    `version` goes into `If-Match`. `status` is the newest run's state, or `scheduled` or `paused` for a recurring task
    between runs.
    """

    id: UUID
    namespace: str
    status: TaskStatus
    paused: bool
    version: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    next_fire_at: datetime | None
    last_run: LastRun | None


class Created(msgspec.Struct, kw_only=True, frozen=True):
    """One created task of a batch; a recurring one has no run yet."""

    id: UUID
    run_id: UUID | None


class PlannedFire(msgspec.Struct, kw_only=True, frozen=True):
    """One coming fire: `at` in UTC, `local` in the task's zone, `note` on daylight saving.

    `load` counts the tasks that fire in the same minute.
    """

    at: datetime
    local: str
    note: str | None
    load: int


class Fire(msgspec.Struct, kw_only=True, frozen=True):
    """What became of one planned fire, or of a stretch of missed ones (up to `until`, `count` of them)."""

    scheduled_for: datetime
    disposition: str
    run_id: UUID | None
    until: datetime | None
    count: int
    decided_at: datetime
