"""The envelopes of answers, and how stored tasks become answers."""

from __future__ import annotations

from typing import Any

import msgspec

from scheduler.domain.run import Attempt, Run
from scheduler.domain.task import Limits, Retry, TaskSpec
from scheduler.store.tasks import StoredTask
from scheduler.wire.access import Key, Namespace
from scheduler.wire.audit import AuditEntry
from scheduler.wire.calendars import StoredCalendar
from scheduler.wire.dead_letters import DeadLetter, Decided
from scheduler.wire.events import PublishedEvent
from scheduler.wire.fleet import Queue, Worker
from scheduler.wire.secrets import Secret
from scheduler.wire.tasks import Created, Fire, PlannedFire, Task
from scheduler.wire.workflows import Workflow, WorkflowRun


class TaskPage(msgspec.Struct, kw_only=True):
    """One page of tasks."""

    items: list[Task]
    next_cursor: str | None


class RunPage(msgspec.Struct, kw_only=True):
    """One page of runs."""

    items: list[Run]
    next_cursor: str | None


class FirePage(msgspec.Struct, kw_only=True):
    """One page of planned fires."""

    items: list[Fire]
    next_cursor: str | None


class KeyPage(msgspec.Struct, kw_only=True):
    """One page of API keys."""

    items: list[Key]
    next_cursor: str | None


class NamespacePage(msgspec.Struct, kw_only=True):
    """The caller's namespaces; there is only one page."""

    items: list[Namespace]
    next_cursor: str | None


class CalendarPage(msgspec.Struct, kw_only=True):
    """One page of calendars."""

    items: list[StoredCalendar]
    next_cursor: str | None


class WorkflowPage(msgspec.Struct, kw_only=True):
    """One page of workflows."""

    items: list[Workflow]
    next_cursor: str | None


class WorkflowRunPage(msgspec.Struct, kw_only=True):
    """One page of workflow runs."""

    items: list[WorkflowRun]
    next_cursor: str | None


class DeadLetterPage(msgspec.Struct, kw_only=True):
    """One page of dead letters."""

    items: list[DeadLetter]
    next_cursor: str | None


class AuditPage(msgspec.Struct, kw_only=True):
    """One page of the audit log."""

    items: list[AuditEntry]
    next_cursor: str | None


class SecretPage(msgspec.Struct, kw_only=True):
    """One page of secrets, without their values."""

    items: list[Secret]
    next_cursor: str | None


class EventPage(msgspec.Struct, kw_only=True):
    """One page of published events."""

    items: list[PublishedEvent]
    next_cursor: str | None


class Attempts(msgspec.Struct, kw_only=True):
    """One page of a run's attempts."""

    items: list[Attempt]
    next_cursor: str | None


class Queues(msgspec.Struct, kw_only=True):
    """One page of queues."""

    items: list[Queue]
    next_cursor: str | None


class Workers(msgspec.Struct, kw_only=True):
    """One page of workers."""

    items: list[Worker]
    next_cursor: str | None


class BatchAnswer(msgspec.Struct, kw_only=True):
    """The created tasks in the order of the request."""

    items: list[Created]


class Plan(msgspec.Struct, kw_only=True):
    """The next fires of a task."""

    items: list[PlannedFire]


class ReplayAnswer(msgspec.Struct, kw_only=True):
    """What became of each selected dead letter."""

    items: list[Decided]


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
    """Return a task in the shape of a Task."""
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
