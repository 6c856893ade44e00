"""Workflows and their runs as they are shown."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from scheduler.domain.run import RunState, Trigger
from scheduler.domain.task import Body
from scheduler.domain.workflows import Parameters, WorkflowSpec


class Workflow(WorkflowSpec, kw_only=True, frozen=True, forbid_unknown_fields=False, omit_defaults=False):
    """A workflow: what its user defined, and where its schedule stands. `version` goes into `If-Match`.

    `task_id` is the recurring task that carries it: pausing, backfilling, fires past and to come are asked there.
    """

    task_id: UUID
    version: int
    paused: bool
    next_fire_at: datetime | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str


class WorkflowStart(Body, kw_only=True, frozen=True):
    """Values of parameters; those that are not given have their defaults."""

    parameters: Parameters = msgspec.field(default_factory=dict)


class WorkflowRun(msgspec.Struct, kw_only=True, frozen=True):
    """A run of a workflow, of the definition's `version`, which is null until it begins."""

    id: UUID
    workflow: str
    version: int | None
    state: RunState
    reason: str | None
    trigger: Trigger
    scheduled_for: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    parameters: dict[str, str]


class WorkflowNode(msgspec.Struct, kw_only=True, frozen=True):
    """A task of a workflow run, and where its run stands."""

    name: str
    task_id: UUID
    run_id: UUID
    state: RunState
    reason: str | None
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None


class WorkflowRunDetail(WorkflowRun, kw_only=True, frozen=True):
    """A run of a workflow with its tasks, in the order of the definition; none until it begins."""

    nodes: list[WorkflowNode]
