"""What tasks that are about to be created become: ids, first fires, and the rows that are inserted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from scheduler.api.context import Context
from scheduler.api.definitions import Planned, Resolved, edges_of, first_fire, with_ids
from scheduler.api.requests import Request
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.domain.validation import effective_run_at
from scheduler.store.edges import Edge
from scheduler.store.intake import NewTask, Origin


def plan(api: Context, specs: Sequence[TaskSpec], now: datetime) -> list[Planned]:
    """Give tasks their ids: a one-off one also that of its run, a recurring one its first fire."""
    ids = api.ids.take(2 * len(specs))
    return [
        Planned(task_id, run_id, None) if spec.schedule is None else Planned(task_id, None, first_fire(spec, now, now))
        for spec, task_id, run_id in zip(specs, ids[::2], ids[1::2], strict=True)
    ]


def new_task(
    request: Request,
    spec: TaskSpec,
    index: int,
    planned: Sequence[Planned],
    resolved: Resolved | None,
    now: datetime,
    *,
    straight: bool,
    origin: Origin | None = None,
) -> NewTask:
    """Return what is inserted for the task at `index` of those planned together."""
    mine = planned[index]
    edges: Sequence[Edge] = ()
    if spec.depends_on and resolved is not None:
        if mine.run_id is None:
            spec = with_ids(spec, resolved.targets[index], planned)
        else:
            edges = edges_of(spec, resolved.targets[index], planned, resolved.stored)
    spec_json = encode_spec(spec)
    if spec.run_at is not None:
        spec = msgspec.structs.replace(spec, run_at=effective_run_at(spec, now))
    return NewTask(
        mine.task_id,
        mine.run_id,
        request.namespace,
        request.actor,
        spec,
        spec_json,
        edges,
        straight,
        request.traceparent,
        None if mine.run_id is not None else now,
        mine.next_fire_at,
        origin,
    )


def unblocked(spec: TaskSpec, now: datetime) -> bool:
    """Say whether nothing but the workers' slots can keep a new one-off run waiting."""
    return (
        spec.schedule is None
        and not spec.delay
        and not spec.depends_on
        and spec.concurrency is None
        and spec.rate_limit is None
        and spec.fairness_key is None
        and (spec.run_at is None or spec.run_at <= now)
        and (spec.starts_at is None or spec.starts_at <= now)
    )
