"""What becomes of the planned fires that have come due: the leader's decision, as a pure function.

Planned are the fires of the schedule in (cursor, now] that lie within [starts_at, ends_at]. A fire is *on time* up to
`ON_TIME` seconds after its moment, else *late*. Oldest first:

1. Late fires follow `catchup`. `none`: missed. Else those older than `catchup_window` are missed, and of the rest
   - `last`: the newest runs and the others are coalesced into it; if fires are on time as well, the first of those that
     makes a run takes its place and absorbs all late ones.
   - `all`: each runs, the newest `CATCHUP_CAP` at most; older ones are missed. They run one by one whatever `overlap`
     says (side by side only under `allow_all`); on-time fires of the same decision join their line.
2. On-time fires follow `overlap`, each counting the runs that this decision has made before it. Under `cancel_other`
   and `terminate_other` the newest wins, and absorbs the others due with it.
3. Coalesced fires whose absorbing run `overlap` refuses share its disposition.
4. Late and on-time fires that a calendar blacks out are `skipped:calendar`, before any of this: no run is theirs.

Missed fires are always the oldest and so are one stretch (`scheduled_for`, `until`, `count`), counted without walking
through it. Coalesced fires are recorded one by one up to `CATCHUP_CAP`, older ones as one stretch. So a decision makes
at most some 200 records however long the scheduler was away, and costs the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

import msgspec

from scheduler.domain.calendars import Blackout
from scheduler.domain.durations import seconds_of
from scheduler.domain.overlap import CancelKind, admit, admit_in_turn
from scheduler.domain.schedule import Schedule
from scheduler.domain.task import TaskSpec
from scheduler.domain.zones import instant_of, moment_of

ON_TIME = 5.0
"""Seconds for which a fire counts as on time: longer than a busy leader takes, shorter than people notice."""

CATCHUP_CAP = 100


class Fire(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The disposition of one planned fire, or of a stretch of `count` from `scheduled_for` to `until` (both included).

    `disposition` is `fired`, `late`, `coalesced`, `skipped:<reason>` or `missed`. With `run_at` set (`fired` and
    `late`) it makes a run, which `waits` if it may start only when every older active run of the task has ended.
    `absorbed_by` is, for coalesced ones, the `scheduled_for` of the fire in the same decision whose run they share.
    """

    scheduled_for: datetime
    disposition: str
    until: datetime | None = None
    count: int = 1
    run_at: datetime | None = None
    waits: bool = False
    absorbed_by: datetime | None = None


class Firing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole decision. `fires` ascend and do not overlap; `cursor` is the newest planned fire decided so far.

    `next_fire_at` is None when nothing is planned any more. `cancel` says what to do to all runs of the task that were
    active before this decision.
    """

    fires: list[Fire]
    cursor: datetime
    next_fire_at: datetime | None
    cancel: CancelKind | None = None


class _Stretch(NamedTuple):
    """Consecutive planned fires that share a disposition."""

    first: int
    last: int
    size: int


class _Due(NamedTuple):
    """The fires that are due, oldest first: missed, merged (within the window, beyond the cap), late, on time."""

    missed: _Stretch | None
    merged: _Stretch | None
    late: list[int]
    on_time: list[int]


def next_fire_at(schedule: Schedule, spec: TaskSpec, after: datetime) -> datetime | None:
    """Return the first planned fire strictly after `after`, within `starts_at` and `ends_at`; None if there is none."""
    return _planned(spec, schedule.next_second(_begin(spec, after)))


def decide(
    task_id: UUID,
    spec: TaskSpec,
    schedule: Schedule,
    *,
    cursor: datetime,
    now: datetime,
    active: int,
    blackout: Blackout | None = None,
) -> Firing:
    """Decide about every planned fire in (cursor, now].

    `spec` is normalised. `cursor` is the newest planned fire decided before, or the task's creation if none was.
    `active` is the number of its runs that are not terminal; `blackout` tells at which instants nothing fires. Equal
    arguments give equal answers.
    """
    after = _begin(spec, cursor)
    until = instant_of(now if spec.ends_at is None else min(now, spec.ends_at))
    first = schedule.next_second(after)
    if first is None or first > until:
        return Firing(fires=[], cursor=cursor, next_fire_at=_planned(spec, first))
    newest, following = first, schedule.next_second(first)
    if following is not None and following <= until:
        newest = schedule.previous_second(until) or first
        following = schedule.next_second(newest)
    due = _sort(schedule, spec, after, first, newest, now.timestamp())
    line = _Line(task_id, spec, now, active)
    line.settle(due if blackout is None else line.black_out(due, blackout))
    return Firing(
        fires=line.fires, cursor=moment_of(newest), next_fire_at=_planned(spec, following), cancel=line.cancel
    )


def left_behind(spec: TaskSpec, schedule: Schedule, *, cursor: datetime, now: datetime) -> Fire | None:
    """Return the missed stretch that the fires in (cursor, now] of a given up plan come to; None without any."""
    after = _begin(spec, cursor)
    until = instant_of(now if spec.ends_at is None else min(now, spec.ends_at))
    first = schedule.next_second(after)
    if first is None or first > until:
        return None
    last = schedule.previous_second(until) or first
    return _stretch(_Stretch(first, last, schedule.count(after, last)), "missed")


def jitter_of(task_id: UUID, instant: int, jitter: float) -> float:
    """Return the seconds, in [0, jitter), by which the run of this fire starts later: always the same for a fire."""
    if not jitter:
        return 0.0
    digest = blake2b(task_id.bytes + instant.to_bytes(8, "big", signed=True), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * jitter


class _Line:
    """The records of one decision, oldest first, and the runs that stand in line because of them."""

    def __init__(self, task_id: UUID, spec: TaskSpec, now: datetime, active: int) -> None:
        self.fires: list[Fire] = []
        self.cancel: CancelKind | None = None
        self._task_id = task_id
        self._spec = spec
        self._now = now
        self._on_time_from = now.timestamp() - ON_TIME
        self._active = active
        self._jitter = seconds_of(spec.jitter)

    def black_out(self, due: _Due, blackout: Blackout) -> _Due:
        """Record the fires that are blacked out, and return the others."""
        out = [instant for instant in (*due.late, *due.on_time) if blackout(instant)]
        self.fires += [Fire(scheduled_for=moment_of(instant), disposition="skipped:calendar") for instant in out]
        late, on_time = ([i for i in instants if i not in out] for instants in (due.late, due.on_time))
        return due._replace(late=late, on_time=on_time)

    def settle(self, due: _Due) -> None:
        """Record a disposition for every fire that is due."""
        self._settle(due)
        self.fires.sort(key=lambda fire: fire.scheduled_for)

    def _settle(self, due: _Due) -> None:
        if due.missed:
            self.fires.append(_stretch(due.missed, "missed"))
        if due.late and self._spec.catchup == "all":
            for instant in (*due.late, *due.on_time):
                self._run(instant, in_turn=True)
            return
        absorbed, candidates = (due.late, due.on_time) if due.on_time else (due.late[:-1], due.late[-1:])
        if self._spec.overlap in ("cancel_other", "terminate_other"):
            absorbed, candidates = [*absorbed, *candidates[:-1]], candidates[-1:]
        decided = len(self.fires)
        for instant in candidates:
            self._run(instant, in_turn=False)
        self.fires += self._absorb(due.merged, absorbed, self.fires[decided:])

    def _run(self, instant: int, *, in_turn: bool) -> None:
        """Record a fire that makes a run, unless the overlap policy refuses it."""
        verdict = (admit_in_turn if in_turn else admit)(self._spec.overlap, self._active)
        planned = moment_of(instant)
        if verdict.refused is not None:
            self.fires.append(Fire(scheduled_for=planned, disposition=f"skipped:{verdict.refused}"))
            return
        self._active += 1
        self.cancel = self.cancel or verdict.cancel
        late = instant < self._on_time_from
        run_at = self._now if late else planned
        if self._jitter:
            run_at += timedelta(seconds=jitter_of(self._task_id, instant, self._jitter))
        disposition = "late" if late else "fired"
        self.fires.append(Fire(scheduled_for=planned, disposition=disposition, run_at=run_at, waits=verdict.waits))

    @staticmethod
    def _absorb(merged: _Stretch | None, absorbed: Sequence[int], decided: Sequence[Fire]) -> list[Fire]:
        """Return the records of fires that share the first run which the decided ones have made."""
        if not merged and not absorbed:
            return []
        run = next((fire.scheduled_for for fire in decided if fire.run_at is not None), None)
        disposition = "coalesced" if run is not None else decided[0].disposition if decided else "missed"
        fires = [_stretch(merged, disposition, run)] if merged else []
        fires += [Fire(scheduled_for=moment_of(i), disposition=disposition, absorbed_by=run) for i in absorbed]
        return fires


def _sort(schedule: Schedule, spec: TaskSpec, after: int, first: int, newest: int, now: float) -> _Due:
    """Sort the planned fires in (after, newest], of which `first` is the oldest, by their age."""
    on_time, rest = _newest(schedule, first, newest, now - ON_TIME)
    if rest is None:
        return _Due(None, None, [], on_time)
    if spec.catchup == "none":
        return _Due(_Stretch(first, rest, schedule.count(after, rest)), None, [], on_time)
    window = max(now - seconds_of(spec.catchup_window), 0.0)
    late, rest = _newest(schedule, first, rest, window)
    merged = None
    if rest is not None and rest >= window and spec.catchup == "last":
        older = schedule.previous_second(math.ceil(window) - 1)
        begin = after if older is None else max(after, older)
        merged = _Stretch(schedule.next_second(begin) or first, rest, schedule.count(begin, rest))
        rest = None if begin == after else begin
    missed = None if rest is None else _Stretch(first, rest, schedule.count(after, rest))
    return _Due(missed, merged, late, on_time)


def _newest(schedule: Schedule, first: int, last: int, oldest: float) -> tuple[list[int], int | None]:
    """Return the fires from `first` to `last` that are not older than `oldest`, in ascending order.

    They are the newest `CATCHUP_CAP` at most; with them goes the fire before them, if there is one from `first` on.
    """
    found: list[int] = []
    instant = last
    while instant >= oldest and len(found) < CATCHUP_CAP:
        found.append(instant)
        if instant == first:
            return found[::-1], None
        instant = schedule.previous_second(instant - 1) or first
    return found[::-1], instant


def _stretch(stretch: _Stretch, disposition: str, absorbed_by: datetime | None = None) -> Fire:
    return Fire(
        scheduled_for=moment_of(stretch.first),
        disposition=disposition,
        until=moment_of(stretch.last),
        count=stretch.size,
        absorbed_by=absorbed_by,
    )


def _begin(spec: TaskSpec, after: datetime) -> int:
    """Return the instant after which fires are planned."""
    if spec.starts_at is None or spec.starts_at <= after:
        return instant_of(after)
    return math.ceil(spec.starts_at.timestamp()) - 1


def _planned(spec: TaskSpec, instant: int | None) -> datetime | None:
    """Return the moment of a fire, None if there is none or if it is after `ends_at`."""
    if instant is None:
        return None
    moment = moment_of(instant)
    return None if spec.ends_at is not None and moment > spec.ends_at else moment
