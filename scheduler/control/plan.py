"""What a decision about a task's planned fires means in rows: runs, their dependencies, dispositions. No I/O.

A run waits for its task's dependencies (the newest fire of each upstream planned at or before its own moment, whether
that was decided or not) and, where the overlap rule says so, for every older run of its own task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from scheduler.domain.calendars import Calendar, blackout_of
from scheduler.domain.cron import parse_schedule
from scheduler.domain.durations import seconds_of
from scheduler.domain.fires import Fire, Firing, decide
from scheduler.domain.gates import gate_name
from scheduler.domain.ids import IdSource
from scheduler.domain.lane import lane_for
from scheduler.domain.run import RunState
from scheduler.domain.schedule import Schedule
from scheduler.domain.task import TaskSpec
from scheduler.store.edges import EdgeState
from scheduler.store.schedules import DueTask, Plan, PlannedEdge, PlannedFire, PlannedRun, Upstream

HOPELESS: Final = "dependency_failed"
"""The reason of a run that is skipped because something that it depends on can no longer happen."""

TakePlace = Callable[[str, int], bool]
"""Called with a lane and a priority: True takes one of the places left for runs that need not wait for promotion."""

NewestFires = Mapping[tuple[UUID, datetime], datetime]


def schedule_of(name: str, spec: TaskSpec, created_at: datetime) -> Schedule:
    """Return the schedule of a recurring task."""
    return parse_schedule(
        spec.schedule or "",
        spec.timezone,
        hash_id=name,
        dst_gap=spec.dst_gap,
        anchor=created_at.replace(microsecond=0),
    )


def upstream_ids(spec: TaskSpec) -> list[UUID]:
    """Return the tasks that a stored definition depends on; the API has resolved every name to an id."""
    return [UUID(dependency.task) for dependency in spec.depends_on]


class Planner:
    """Turns due tasks into plans. `upstreams` and `newest` say what is known of the tasks that they depend on."""

    def __init__(
        self, ids: IdSource, take_place: TakePlace, upstreams: Mapping[UUID, Upstream], newest: NewestFires
    ) -> None:
        self._ids = ids
        self._take_place = take_place
        self._upstreams = upstreams
        self._newest = newest

    def plan(self, task: DueTask, firing: Firing) -> Plan:
        """Return the rows that `firing`, the decision about `task`, comes to.

        Raises ValueError where a task that it depends on would have to be read and cannot be.
        """
        older = [run.id for run in task.active]
        runs: dict[datetime, PlannedRun] = {}
        for fire in firing.fires:
            if fire.run_at is not None:
                run = self._run(task, fire, older)
                runs[fire.scheduled_for] = run
                older.append(run.id)
        return Plan(
            task,
            firing.cursor,
            firing.next_fire_at,
            [_planned(fire, runs) for fire in firing.fires],
            list(runs.values()),
            cancel=firing.cancel is not None and bool(task.active),
        )

    def _run(self, task: DueTask, fire: Fire, older: Sequence[UUID]) -> PlannedRun:
        assert fire.run_at is not None
        spec = task.spec
        edges = self._dependencies(spec, fire.scheduled_for)
        if fire.waits:
            edges += _line(task.id, older, len(edges))
        lane = lane_for(task.namespace, spec)
        gate = gate_name(task.namespace, spec)
        state: RunState = "pending"
        if any(edge.state == "impossible" for edge in edges):
            state = "skipped"
        elif not edges and fire.run_at <= task.now and gate is None and self._take_place(lane, spec.priority):
            state = "queued"
        return PlannedRun(
            id=self._ids.one(),
            queue=spec.queue,
            lane=lane,
            priority=spec.priority,
            state=state,
            reason=HOPELESS if state == "skipped" else None,
            scheduled_for=fire.scheduled_for,
            run_at=fire.run_at,
            start_within=None if spec.schedule_timeout is None else seconds_of(spec.schedule_timeout),
            unmet=sum(edge.state == "waiting" for edge in edges),
            max_attempts=spec.retry.max_attempts,
            gate=gate,
            edges=edges or None,
        )

    def _dependencies(self, spec: TaskSpec, moment: datetime) -> list[PlannedEdge]:
        edges = []
        for position, dependency in enumerate(spec.depends_on):
            upstream_id = UUID(dependency.task)
            upstream = self._upstreams.get(upstream_id)
            run_id = None if upstream is None else upstream.run_id
            fire = None
            if upstream is not None and not upstream.deleted and upstream.recurring:
                fire = self._newest_planned(upstream, moment)
            state: EdgeState = "waiting" if run_id or fire else "impossible"
            edges.append(PlannedEdge(position, upstream_id, run_id, fire, dependency.on, state))
        return edges

    def _newest_planned(self, upstream: Upstream, moment: datetime) -> datetime | None:
        """Return the newest fire planned at or before `moment`: one still to be decided, else what was decided last.

        What was decided is looked up and not computed: the schedule may have been another one then.
        """
        cursor = upstream.fire_cursor or upstream.created_at
        if moment > cursor:
            if upstream.spec is None:
                raise ValueError(f"it depends on {upstream.id}, which this release cannot read")
            last = moment if upstream.spec.ends_at is None else min(moment, upstream.spec.ends_at)
            fire = schedule_of(upstream.name, upstream.spec, upstream.created_at).previous_at_or_before(last)
            first = cursor if upstream.spec.starts_at is None else max(cursor, upstream.spec.starts_at)
            if fire is not None and fire > cursor and fire >= first:
                return fire
        return self._newest.get((upstream.id, moment))


def fires_of(task: DueTask, calendars: Mapping[tuple[str, str], Calendar]) -> Firing:
    """Decide about every fire of `task` that has come due. Raises ValueError for a schedule that is none.

    `calendars` are those that it keeps to, by (namespace, name); one that is not there blacks nothing out.
    """
    schedule = schedule_of(task.name, task.spec, task.created_at)
    cursor = task.fire_cursor or task.created_at
    kept_to = [calendars[key] for name in task.spec.calendars if (key := (task.namespace, name)) in calendars]
    return decide(
        task.id,
        task.spec,
        schedule,
        cursor=cursor,
        now=task.now,
        active=len(task.active),
        blackout=blackout_of(kept_to),
    )


def rows_of(task: DueTask, firing: Firing) -> int:
    """Return how many rows a plan comes to: fires, runs, and dependencies, which grow by the square of the runs."""
    rows, older = len(firing.fires), len(task.active)
    for fire in firing.fires:
        if fire.run_at is not None:
            rows += 1 + len(task.spec.depends_on) + (older if fire.waits else 0)
            older += 1
    return rows


def _line(task_id: UUID, older: Sequence[UUID], position: int) -> list[PlannedEdge]:
    """Return dependencies on the end, whatever it is, of every older run of the task.

    On all of them: were it only the newest one, cancelling that would let its successor start beside the others.
    """
    return [PlannedEdge(position + n, task_id, run_id, None, "completion") for n, run_id in enumerate(older)]


def _planned(fire: Fire, runs: Mapping[datetime, PlannedRun]) -> PlannedFire:
    run = runs.get(fire.scheduled_for if fire.absorbed_by is None else fire.absorbed_by)
    return PlannedFire(
        scheduled_for=fire.scheduled_for,
        disposition=fire.disposition,
        run_id=None if run is None else run.id,
        until=fire.until,
        count=fire.count,
    )
