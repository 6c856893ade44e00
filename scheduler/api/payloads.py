"""The bodies of requests and answers that are not domain types, and how stored rows become answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from scheduler.domain.blockers import Blocker
from scheduler.domain.run import Attempt, Run, RunState
from scheduler.domain.task import Body, Limits, Name, Retry, TaskSpec
from scheduler.store.dead_letters import DeadLetter
from scheduler.store.queues import Leader, Queue, Worker
from scheduler.store.tasks import LastRun, PlannedFire, StoredTask, TaskStatus


class TaskAnswer(TaskSpec, kw_only=True, frozen=True, forbid_unknown_fields=False):
    """A task: everything that its user defined, defaults included, and what became of it."""

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


class TaskPage(msgspec.Struct, kw_only=True):
    """One page of tasks."""

    items: list[TaskAnswer]
    next_cursor: str | None


class RunPage(msgspec.Struct, kw_only=True):
    """One page of runs."""

    items: list[Run]
    next_cursor: str | None


class FirePage(msgspec.Struct, kw_only=True):
    """One page of planned fires."""

    items: list[PlannedFire]
    next_cursor: str | None


class DeadLetterPage(msgspec.Struct, kw_only=True):
    """One page of dead letters."""

    items: list[DeadLetter]
    next_cursor: str | None


class Attempts(msgspec.Struct, kw_only=True):
    """Every attempt of a run."""

    items: list[Attempt]


class Queues(msgspec.Struct, kw_only=True):
    """Every queue."""

    items: list[Queue]


class Workers(msgspec.Struct, kw_only=True):
    """Every worker."""

    items: list[Worker]


class CreatedItem(msgspec.Struct, kw_only=True):
    """One created task of a batch; `run_id` is null for a recurring one."""

    id: UUID
    run_id: UUID | None


class BatchAnswer(msgspec.Struct, kw_only=True):
    """The created tasks in the order of the request."""

    items: list[CreatedItem]


class CancelAnswer(msgspec.Struct, kw_only=True):
    """Runs that ended at once, and executing ones that were asked to."""

    cancelled: list[UUID]
    requested: list[UUID]


class PlanItem(msgspec.Struct, kw_only=True):
    """One planned fire: the instant, its local time, what daylight saving does, how many tasks fire in that minute."""

    at: datetime
    local: str
    note: str | None
    load: int


class Plan(msgspec.Struct, kw_only=True):
    """The next fires of a task."""

    items: list[PlanItem]


class Explanation(msgspec.Struct, kw_only=True):
    """Why a run is not running: every blocker that stands now."""

    run_id: UUID
    state: RunState
    blockers: list[Blocker]


class FenceAnswer(msgspec.Struct, kw_only=True):
    """Whether a fence still holds, and which one does (null: no attempt executes)."""

    valid: bool
    current: int | None


class CheckpointAnswer(msgspec.Struct, kw_only=True):
    """A checkpoint was stored."""

    stored_at: datetime
    size: int


class DeadLetterSelection(Body, kw_only=True, frozen=True):
    """Dead letters by id, or by filter (`limit` at a time, newest first)."""

    ids: list[UUID] | None = None
    queue: Name | None = None
    task_id: UUID | None = None
    reason: Name | None = None
    limit: int = 1000


class ReplayRequest(DeadLetterSelection, kw_only=True, frozen=True):
    """`edits` is a merge patch for the definitions of the tasks that are replayed."""

    edits: dict[str, Any] | None = None


class ReplayItem(msgspec.Struct, kw_only=True):
    """What became of one dead letter: `code` says why nothing did."""

    id: UUID
    run_id: UUID | None
    result: Literal["replayed", "discarded", "refused"]
    code: str | None = None


class ReplayAnswer(msgspec.Struct, kw_only=True):
    """What became of each selected dead letter."""

    items: list[ReplayItem]


class QueueAnswer(msgspec.Struct, kw_only=True):
    """Whether a queue is paused now."""

    name: str
    paused: bool


class DrainAnswer(msgspec.Struct, kw_only=True):
    """The worker hears of it with its next renewal, at once if Redis is there."""

    id: UUID
    drain_requested: bool


class Liveness(msgspec.Struct, kw_only=True):
    """The process answers."""

    status: Literal["ok"]


class Readiness(msgspec.Struct, kw_only=True):
    """`status` is `ok` when a POST would be accepted; `leader` and `workers` say whether it would also be run."""

    status: Literal["ok", "starting", "unavailable", "stopping"]
    database: bool
    schema: bool
    leader: bool
    workers: int


class Dependency(msgspec.Struct, kw_only=True):
    """One server that we depend on: how long a question took, or what was wrong."""

    ok: bool
    seconds: float | None
    error: str | None


class Part(msgspec.Struct, kw_only=True):
    """One part of this process."""

    ok: bool
    detail: str
    since: datetime
    failures: int


class DeepHealth(msgspec.Struct, kw_only=True):
    """Everything that this process knows of the system's health."""

    status: Literal["ok", "degraded", "unavailable"]
    now: datetime
    version: str
    dependencies: dict[str, Dependency]
    leader: Leader | None
    workers: int | None
    parts: dict[str, Part]


def _defaults() -> dict[str, Any]:
    encoder = msgspec.json.Encoder()
    fields = {}
    for field in msgspec.structs.fields(TaskSpec):
        if field.default is not msgspec.NODEFAULT:
            fields[field.encode_name] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            fields[field.encode_name] = field.default_factory()
    fields["retry"], fields["limits"] = _RETRY, _LIMITS
    return msgspec.json.decode(encoder.encode(fields))  # type: ignore[no-any-return]


def _nested(type: type[msgspec.Struct]) -> dict[str, Any]:  # noqa: A002 - it is one
    instance = type()
    return {name: getattr(instance, name) for name in instance.__struct_fields__}


_RETRY = _nested(Retry)
_LIMITS = _nested(Limits)
_DEFAULTS = _defaults()


def with_defaults(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a stored spec with every default filled in."""
    full = {**_DEFAULTS, **spec}
    if "retry" in spec:
        full["retry"] = {**_RETRY, **spec["retry"]}
    if "limits" in spec:
        full["limits"] = {**_LIMITS, **spec["limits"]}
    return full


def task_answer(task: StoredTask) -> dict[str, Any]:
    """Return a task in the shape of a TaskAnswer."""
    return {
        "id": task.id,
        "namespace": task.namespace,
        "status": task.status,
        "paused": task.paused,
        "version": task.version,
        "created_at": task.created_at,
        "created_by": task.created_by,
        "updated_at": task.updated_at,
        "updated_by": task.updated_by,
        "next_fire_at": task.next_fire_at,
        "last_run": task.last_run,
        **with_defaults(msgspec.json.decode(task.spec)),
    }
