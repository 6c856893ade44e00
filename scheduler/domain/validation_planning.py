"""Whether a task can ever run when asked: schedule, zone, moments, dependencies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import structs

from scheduler.domain import text
from scheduler.domain.complaints import Complaints, quoted
from scheduler.domain.cron import parse_schedule
from scheduler.domain.fires import next_fire_at
from scheduler.domain.schedule import EventSchedule, Schedule
from scheduler.domain.task import Dependency, TaskSpec
from scheduler.domain.zones import zone_named


def check_planning(spec: TaskSpec, now: datetime | None, found: Complaints, changes: dict[str, Any]) -> None:
    """Complain about what can never be due; put fields that have a normal form into `changes`.

    What was due in time may be past now: that is complained about only where `now` says when that is.
    """
    if spec.run_at is not None:
        changes["run_at"] = _moment(spec.run_at, "run_at", found)
        if spec.delay is not None:
            found.add("delay", "run_at and delay exclude each other: leave one of them out")
    zone_is_known = spec.timezone == "UTC" or _zone(spec.timezone, found)
    if spec.schedule is None:
        for field in ("starts_at", "ends_at"):
            if getattr(spec, field) is not None:
                found.add(field, "bounds a schedule, and there is none: write run_at or delay, or a schedule")
    else:
        _recurring(spec, spec.schedule, now, "UTC" if not zone_is_known else spec.timezone, found, changes)
    if spec.depends_on:
        _dependencies(spec.name, spec.depends_on, found)


def _recurring(
    spec: TaskSpec, expression: str, now: datetime | None, zone: str, found: Complaints, changes: dict[str, Any]
) -> None:
    for field in ("run_at", "delay"):
        if getattr(spec, field) is not None:
            found.add(field, "a task with a schedule has no single moment: leave this or the schedule out")
    bounds = {
        field: _moment(moment, field, found)
        for field, moment in (("starts_at", spec.starts_at), ("ends_at", spec.ends_at))
        if moment is not None
    }
    changes |= bounds
    starts_at, ends_at = bounds.get("starts_at"), bounds.get("ends_at")
    within = True
    if now is not None and ends_at is not None and ends_at <= now:
        found.add("ends_at", f"{_rfc3339(ends_at)} is past (it is {_rfc3339(now)}): write a later moment, or none")
        within = False
    if ends_at is not None and starts_at is not None and ends_at <= starts_at:
        found.add("ends_at", "is not after starts_at: write a later moment, or none")
        within = False
    if complaint := text.control(expression):
        found.add("schedule", complaint)
        return
    try:
        schedule = parse_schedule(expression, zone, hash_id=spec.name, dst_gap=spec.dst_gap, anchor=now)
    except ValueError as error:
        found.add("schedule", str(error))
        return
    if isinstance(schedule, EventSchedule):
        changes["schedule"] = schedule.expression
        _refuse_planning(spec, found)
    elif within and now is not None:
        _refuse_no_fires(schedule, structs.replace(spec, **bounds) if bounds else spec, now, found)


def _refuse_planning(spec: TaskSpec, found: Complaints) -> None:
    for field in ("jitter", "calendars", "depends_on"):
        if getattr(spec, field):
            found.add(field, "is about planned times, and events come when they come: leave it out")


def _refuse_no_fires(schedule: Schedule, spec: TaskSpec, now: datetime, found: Complaints) -> None:
    if next_fire_at(schedule, spec, now) is not None:
        return
    following = schedule.next_after(now if spec.starts_at is None else max(now, spec.starts_at))
    if following is None:
        last = schedule.previous_at_or_before(now)
        when = "it would never" if last is None else f"it would have last on {_rfc3339(last)}"
        found.add("schedule", f"no time to come matches: {when}")
    else:
        found.add("ends_at", f"the schedule would first fire on {_rfc3339(following)}, which is later")


def _zone(name: str, found: Complaints) -> bool:
    try:
        zone_named(name)
    except ValueError as error:
        found.add("timezone", str(error))
        return False
    return True


def _moment(moment: datetime, field: str, found: Complaints) -> datetime:
    """Return a moment in UTC."""
    if not 1970 <= moment.year <= 9998:  # so that no conversion between zones can leave the calendar
        found.add(field, "is out of range: write a moment from 1970 to 9998")
        return moment.replace(year=2000, month=1, day=1, tzinfo=UTC)
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _rfc3339(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _dependencies(name: str, dependencies: list[Dependency], found: Complaints) -> None:
    seen: set[str] = set()
    for i, dependency in enumerate(dependencies):
        place = f"depends_on/{i}/task"
        found.text(place, dependency.task, text.label)
        if dependency.task == name:
            found.add(place, f"the task depends on itself: {quoted(name)} → {quoted(name)}")
        elif dependency.task in seen:
            found.add(place, f"{quoted(dependency.task)} stands here twice: one condition on each task")
        seen.add(dependency.task)
