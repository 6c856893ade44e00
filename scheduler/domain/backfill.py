"""Runs for planned fires that have passed: which of them get one, as a pure function.

Only fires that the leader has decided, or that lie before the task's first decision, can be backfilled: what is still
to be decided is the schedule's. A fire that has a run of its own keeps it; one that was missed, skipped or coalesced
gets one. Unless the caller names another rule, the runs go one by one, as catch-up does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from scheduler.domain.calendars import Blackout
from scheduler.domain.overlap import admit, admit_in_turn
from scheduler.domain.schedule import Schedule
from scheduler.domain.task import TaskSpec
from scheduler.domain.zones import instant_of, moment_of

BackfillOverlap = Literal["skip", "buffer_one", "buffer_all", "allow_all"]

MOST = 500
"""Runs that one backfill may make: each waits for every older one, so their edges grow with the square."""

_OWN_RUN = frozenset({"fired", "late"})


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in `fires`: one fire, or a stretch of `count` from `scheduled_for` to `until`."""

    scheduled_for: datetime
    disposition: str
    run_id: UUID | None = None
    until: datetime | None = None
    count: int = 1


class BackfillFire(msgspec.Struct, frozen=True, kw_only=True):
    """One fire of the range. `run`: it makes a run, which `waits` for older ones; `exists`: it has one, `run_id`."""

    scheduled_for: datetime
    result: Literal["run", "exists", "skipped"]
    reason: str | None = None
    run_id: UUID | None = None
    waits: bool = False


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """A whole decision. `remains` replace stretches that runs were taken out of; `next_from`: the cap was reached."""

    fires: list[BackfillFire]
    remains: list[Decided]
    next_from: datetime | None


def planned_between(schedule: Schedule, spec: TaskSpec, start: datetime, end: datetime, most: int) -> list[datetime]:
    """Return the first `most` planned fires from `start` to `end`, both included, within `starts_at` and `ends_at`."""
    first = start if spec.starts_at is None else max(start, spec.starts_at)
    last = end if spec.ends_at is None else min(end, spec.ends_at)
    return schedule.between(moment_of(math.ceil(first.timestamp()) - 1), last, most)


def plan_backfill(
    schedule: Schedule,
    spec: TaskSpec,
    planned: Sequence[datetime],
    decided: Sequence[Decided],
    *,
    cap: int,
    overlap: BackfillOverlap | None,
    active: int,
    blackout: Blackout | None = None,
) -> Backfill:
    """Decide about the first `cap` of the `planned` fires of a range.

    `decided` are the records of these, and the stretches that hold one of them, ascending. `active` is the number of
    the task's live runs.
    """
    own = {d.scheduled_for: d.run_id for d in decided if d.disposition in _OWN_RUN}
    fires = []
    for moment in planned[:cap]:
        if moment in own:
            fires.append(BackfillFire(scheduled_for=moment, result="exists", run_id=own[moment]))
            continue
        if blackout is not None and blackout(instant_of(moment)):
            fires.append(BackfillFire(scheduled_for=moment, result="skipped", reason="calendar"))
            continue
        verdict = admit_in_turn(spec.overlap, active) if overlap is None else admit(overlap, active)
        if verdict.refused is not None:
            fires.append(BackfillFire(scheduled_for=moment, result="skipped", reason=verdict.refused))
            continue
        active += 1
        fires.append(BackfillFire(scheduled_for=moment, result="run", waits=verdict.waits))
    made = [fire.scheduled_for for fire in fires if fire.result == "run"]
    remains = [piece for stretch in decided if stretch.until is not None for piece in _rest(schedule, stretch, made)]
    return Backfill(fires=fires, remains=remains, next_from=planned[cap] if len(planned) > cap else None)


def _rest(schedule: Schedule, stretch: Decided, made: Sequence[datetime]) -> list[Decided]:
    """Return what is left of a stretch without the fires that are `made` into runs; nothing if it stays whole.

    Its ends stand even where the schedule has been another one since: a disposition is never lost.
    """
    assert stretch.until is not None
    taken = [moment for moment in made if stretch.scheduled_for <= moment <= stretch.until]
    if not taken:
        return []
    pieces = []
    begin: int | None = instant_of(stretch.scheduled_for)
    for moment in taken:
        cut = instant_of(moment)
        if begin is not None and begin < cut:
            pieces.append((begin, max(begin, schedule.previous_second(cut - 1) or begin)))
        begin = schedule.next_second(cut)
    end = instant_of(stretch.until)
    if end > instant_of(taken[-1]):
        pieces.append((end if begin is None else min(begin, end), end))
    return [
        msgspec.structs.replace(
            stretch,
            scheduled_for=moment_of(low),
            until=moment_of(high),
            count=max(1, schedule.count(low - 1, high)),
        )
        for low, high in pieces
    ]
