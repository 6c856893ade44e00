"""Whether a task means something possible, and its normal form.

msgspec has checked shapes and types. Here every complaint about the meaning is collected, each with its JSON pointer;
durations become seconds, sizes bytes, moments UTC, and signals lose their prefix. Without a schedule, fields that only
tell how to fire (`jitter`, `catchup`, `overlap`, `timezone`…) are harmless and stay: the task may get one later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import structs

from scheduler.domain import text
from scheduler.domain.complaints import Complaints, quoted, step
from scheduler.domain.durations import parse_duration
from scheduler.domain.lane import PLAIN_EXECUTOR
from scheduler.domain.task import HISTORY, TaskSpec
from scheduler.domain.validation_execution import check_execution
from scheduler.domain.validation_gates import check_gates
from scheduler.domain.validation_planning import check_planning

_NOT_YET: tuple[tuple[str, Callable[[TaskSpec], Sequence[str]]], ...] = (
    ("executors other than 'process'", lambda spec: [] if spec.executor == PLAIN_EXECUTOR else ["executor"]),
)
"""What this version refuses, because it would have to ignore it: the words for it, and where a spec asks for it."""

_DURATIONS = {
    "delay": False,
    "jitter": False,
    "catchup_window": False,
    "kill_timeout": False,
    "timeout": True,
    "schedule_timeout": True,
    "stall_timeout": True,
    "retention": True,
}
"""The fields that are durations, and whether zero is too short."""

_DEFAULTS = {field.name: field.default for field in structs.fields(TaskSpec) if field.name in _DURATIONS}


def normalise(spec: TaskSpec, now: datetime | None, pointer: str = "") -> TaskSpec:
    """Return the normal form of a decoded spec. Raises InvalidInput with every complaint.

    `now` dates the request, and decides what is past; None: nothing is. The normal form is the same at any time.
    `pointer` is where the spec stands in the body, for example `/12` in a batch.
    """
    found = Complaints(pointer)
    changes: dict[str, Any] = {}
    _labels(spec, found)
    for field, positive in _DURATIONS.items():
        value = getattr(spec, field)
        if value is not None and value is not _DEFAULTS[field]:
            changes[field] = found.seconds(field, value, positive=positive)
    if changes.get("retention", 0.0) > HISTORY:
        found.add("retention", "history goes after 30 days, with all that runs have left: 30d at most")
    check_execution(spec, found, changes)
    check_gates(spec, found, changes)
    check_planning(spec, now, found, changes)
    for what, asked_for in _NOT_YET:
        for place in asked_for(spec):
            found.add(place, f"{what} are not supported by this version: leave this out")
    found.raise_any()
    return structs.replace(spec, **changes) if changes else spec


def effective_run_at(spec: TaskSpec, now: datetime) -> datetime:
    """Return when the run of a one-off task is due: `run_at`, or `delay` from now, but never before now.

    A past moment means now: runs of equal priority go by this time, and nobody should get ahead by dating back.
    """
    if spec.run_at is not None:
        return max(spec.run_at, now)
    if spec.delay is not None:
        return now + timedelta(seconds=parse_duration(spec.delay))
    return now


def _labels(spec: TaskSpec, found: Complaints) -> None:
    """Check what names, groups and finds a task."""
    found.text("name", spec.name, text.label)
    if spec.queue != "default":
        found.text("queue", spec.queue, text.queue)
    for field in ("fairness_key", "idempotency_key"):
        value = getattr(spec, field)
        if value is not None:
            found.text(field, value, text.label)
    for field in ("executor", "timezone"):
        found.text(field, getattr(spec, field), text.storable)
    if spec.tags:
        _unique("tags", spec.tags, found)
    if spec.calendars:
        _unique("calendars", spec.calendars, found)
    for field in ("labels", "requires"):
        for key, value in getattr(spec, field).items():
            place = f"{field}/{step(key)}"
            found.text(place, key, text.label)
            found.text(place, value, text.control)


def _unique(field: str, names: Sequence[str], found: Complaints) -> None:
    seen: set[str] = set()
    for i, name in enumerate(names):
        found.text(f"{field}/{i}", name, text.label)
        if name in seen:
            found.add(f"{field}/{i}", f"{quoted(name)} stands here twice")
        seen.add(name)
