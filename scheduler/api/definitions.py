"""What a definition refers to: names become ids, dependencies become edges, schedules get their first fire.

`depends_on.task` is an id, else a name in the same batch, else the only live task so named; everything else is a 422
that points at it. Cycles are refused with the cycle named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from scheduler.domain.cron import parse_schedule
from scheduler.domain.dependencies import Edge as Reference
from scheduler.domain.dependencies import describe_cycle, find_cycle, resolve_batch
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.domain.fires import next_fire_at
from scheduler.domain.schedule import Schedule, on_event
from scheduler.domain.task import Dependency, TaskSpec, decode_spec
from scheduler.store.database import Executor
from scheduler.store.edges import Edge
from scheduler.store.tasks import LockedTask, Tasks, Upstream

_RUNS_ONCE = "a scheduled task depends on scheduled tasks only: this one runs once"
_UNPLANNED = "a scheduled task depends on planned times of others: this one runs when something has happened"
_NO_RUN = "the task has no run to wait for"
_NEITHER = f"{_NO_RUN}, and no time is planned for one"

Target = int | UUID
"""What a dependency names: the index of a task in the same batch, or the id of a stored task."""


class Planned(msgspec.Struct, frozen=True, gc=False):
    """The ids of a task that is about to be created, and when it first fires if it is recurring."""

    task_id: UUID
    run_id: UUID | None
    next_fire_at: datetime | None


class Resolved(msgspec.Struct, frozen=True):
    """The dependencies of a batch: for each task with some, its targets in order; and the stored tasks among them."""

    targets: dict[int, list[Target]]
    stored: dict[UUID, Upstream]


def schedule_of(spec: TaskSpec, created_at: datetime) -> Schedule | None:
    """Return a normalised spec's schedule, None for a one-off task."""
    if spec.schedule is None:
        return None
    return parse_schedule(spec.schedule, spec.timezone, hash_id=spec.name, dst_gap=spec.dst_gap, anchor=created_at)


def first_fire(spec: TaskSpec, created_at: datetime, after: datetime) -> datetime | None:
    """Return when a task first fires after a moment; None for a one-off task, or if it never will."""
    schedule = schedule_of(spec, created_at)
    return next_fire_at(schedule, spec, after) if schedule is not None else None


async def resolve(tasks: Tasks, namespace: str, specs: Sequence[TaskSpec], *, at: str) -> Resolved:
    """Find what each `depends_on` names; `at` is the pointer of a task in the body: "/{index}", or "" for a single one.

    Raises InvalidInput with every one that names nothing, or too much, or what cannot be waited for; or with a cycle.
    """
    edges = resolve_batch(specs, pointer=at)
    names = {edge.name for own in edges for edge in own if edge.name is not None}
    by_name = await tasks.resolve_names(namespace, sorted(names)) if names else {}
    ids = {edge.task_id for own in edges for edge in own if edge.task_id is not None}
    ids.update(found[0] for found in by_name.values())
    stored = await tasks.upstreams(namespace, sorted(ids)) if ids else {}

    errors: list[FieldError] = []
    targets: dict[int, list[Target]] = {}
    for index, own in enumerate(edges):
        for edge in own:
            target = _target(edge, by_name, stored)
            if isinstance(target, str):
                complaint: str | None = target
            else:
                targets.setdefault(index, []).append(target)
                complaint = _unfit(specs[index], specs[target] if isinstance(target, int) else stored[target])
            if complaint is not None:
                errors.append(FieldError(f"{at.format(index=index)}/depends_on/{edge.position}/task", complaint))
    if errors:
        raise InvalidInput(errors[:100])
    return Resolved(targets, stored)


def edges_of(
    spec: TaskSpec, targets: Sequence[Target], planned: Sequence[Planned], stored: dict[UUID, Upstream]
) -> list[Edge]:
    """Return the edges of a one-off task's run.

    On a one-off task it waits for that one's newest run; on a recurring one for its live run, else for its next fire.
    """
    edges = []
    for dependency, target in zip(spec.depends_on, targets, strict=True):
        if isinstance(target, int):
            upstream = planned[target]
            task_id, run_id, fire = upstream.task_id, upstream.run_id, upstream.next_fire_at
        else:
            known = stored[target]
            task_id, fire = target, known.next_fire_at
            run_id = known.live_run_id if known.recurring else known.run_id
        edges.append(Edge(task_id, run_id, None if run_id is not None else fire, dependency.on))
    return edges


def with_ids(spec: TaskSpec, targets: Sequence[Target], planned: Sequence[Planned]) -> TaskSpec:
    """Return a recurring task's spec with ids in place of names: these stay right when names come and go."""
    depends_on = [
        Dependency(task=str(planned[target].task_id if isinstance(target, int) else target), on=dependency.on)
        for dependency, target in zip(spec.depends_on, targets, strict=True)
    ]
    return msgspec.structs.replace(spec, depends_on=depends_on)


async def refuse_cycle_with(tasks: Tasks, executor: Executor, task: LockedTask, spec: TaskSpec) -> None:
    """Raise InvalidInput if a recurring task with this spec, which depends on ids, closes a cycle.

    Until the transaction ends, nobody else can close one with it.
    """
    definitions = await tasks.hold_definitions(executor, task.namespace)
    names: dict[UUID, str] = {d.id: d.name for d in definitions}
    names[task.id] = spec.name
    graph = {d.id: d.upstream for d in definitions}
    graph[task.id] = [UUID(dependency.task) for dependency in spec.depends_on]
    if cycle := find_cycle(graph):
        raise InvalidInput([FieldError("/depends_on", describe_cycle([names.get(t, str(t)) for t in cycle]))])


def _target(edge: Reference, by_name: Mapping[str, Sequence[UUID]], stored: Mapping[UUID, Upstream]) -> Target | str:
    """Return what a dependency names, or what is wrong with it."""
    if edge.index is not None:
        return edge.index
    if edge.task_id is not None:
        return edge.task_id if edge.task_id in stored else f"there is no task {edge.task_id}"
    found = by_name.get(edge.dependency.task, ())
    if len(found) > 1:
        return f"several live tasks are named {edge.dependency.task!r}: give the id of the one that is meant"
    if not found or found[0] not in stored:
        return f"no live task is named {edge.dependency.task!r}"
    return found[0]


def _unfit(spec: TaskSpec, upstream: TaskSpec | Upstream) -> str | None:
    """Say why a task cannot wait for another."""
    recurring = upstream.schedule is not None if isinstance(upstream, TaskSpec) else upstream.recurring
    if spec.schedule is not None:
        if not recurring:
            return _RUNS_ONCE
        return _UNPLANNED if _runs_on_event(upstream) else None
    if isinstance(upstream, TaskSpec):
        return _NEITHER if _runs_on_event(upstream) else None
    if recurring and upstream.live_run_id is None and upstream.next_fire_at is None:
        return _NEITHER
    if not recurring and upstream.run_id is None:
        return _NO_RUN
    return None


def _runs_on_event(upstream: TaskSpec | Upstream) -> bool:
    """Say whether no time is ever planned for a task, because it runs when an event is published."""
    schedule = (upstream if isinstance(upstream, TaskSpec) else decode_spec(upstream.spec)).schedule or ""
    return schedule.startswith(on_event(""))
