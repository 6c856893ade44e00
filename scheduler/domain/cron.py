"""Schedules: when a recurring task is planned to run, in its own time zone, through daylight saving.

A cron expression names local times. Where the local clock jumps, this is what they mean:

- A local time that does not exist is skipped; with `dst_gap="shift"` it fires at the first instant after the gap
  (several such times in one gap make one fire).
- A local time that comes twice fires once, the first time.
- If every hour of the day matches (`*`, `*/1`, `0-23`), the schedule follows elapsed time instead: it fires at every
  instant whose local time matches, so `*/30 * * * *` fires every 30 real minutes through both changes. `*/2` lists
  hours, as `0,2,4…` does, and keeps to local times.

`@every 90s` knows no local time: it fires at whole periods after its anchor, which is the task's creation.
`@event NAME` knows no time at all: it fires when an event of that name is published.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Literal

from scheduler.domain.cron_fields import MACROS, is_hashed, parse_fields
from scheduler.domain.cron_search import WallClock
from scheduler.domain.durations import parse_duration
from scheduler.domain.schedule import (
    EVENT_NAME,
    FIRST_INSTANT,
    LAST_INSTANT,
    EventSchedule,
    EverySchedule,
    Schedule,
    on_event,
)
from scheduler.domain.zones import DAY, Stretch, Zone, instant_of, moment_of, zone_named

__all__ = ["CronSchedule", "DstGap", "EverySchedule", "Schedule", "parse_schedule"]

DstGap = Literal["skip", "shift"]

_LONGEST_EXPRESSION = 1000
_FULL_DAY = (1 << 24) - 1
_APART = 2 * DAY
"""No two zones, and no two offsets of a zone, are further apart."""


class CronSchedule(Schedule):
    """A cron expression in a zone: the search over local times, stretch by stretch of constant offset."""

    def __init__(self, expression: str, zone: Zone, hash_id: str, dst_gap: DstGap) -> None:
        super().__init__(expression, zone)
        fields = parse_fields(expression, hash_id)
        self._wall = WallClock(fields)
        self._elapsed = fields.hours == _FULL_DAY
        self._shift = dst_gap == "shift" and not self._elapsed

    def next_second(self, after: int) -> int | None:
        """See `Schedule`."""
        instant = max(after, FIRST_INSTANT) + 1
        while instant <= LAST_INSTANT:
            stretch = self.zone.stretch(instant)
            if instant == stretch.start and self._lands_after_gap(stretch):
                return instant
            wall = self._wall.next(max(instant + stretch.offset, self._first_wall(stretch)))
            if wall is None:
                return None
            if wall < stretch.end + stretch.offset:
                return wall - stretch.offset
            instant = max(stretch.end, wall - stretch.offset - _APART)
        return None

    def previous_second(self, at: int) -> int | None:
        """See `Schedule`."""
        instant = min(at, LAST_INSTANT)
        while instant >= FIRST_INSTANT:
            stretch = self.zone.stretch(instant)
            wall = self._wall.previous(instant + stretch.offset)
            if wall is None:
                return None
            if wall >= self._first_wall(stretch):
                return wall - stretch.offset
            if self._lands_after_gap(stretch):
                return stretch.start
            instant = min(stretch.start - 1, wall - stretch.offset + _APART)
        return None

    def count(self, after: int, until: int) -> int:
        """See `Schedule`."""
        total = 0
        instant, until = max(after, FIRST_INSTANT) + 1, min(until, LAST_INSTANT)
        while instant <= until:
            stretch = self.zone.stretch(instant)
            end = min(stretch.end, until + 1)
            first = max(instant + stretch.offset, self._first_wall(stretch))
            total += self._wall.count(first, end + stretch.offset)
            if instant == stretch.start and self._lands_after_gap(stretch):
                total += 1 - self._wall.count(first, first + 1)  # if the first instant matches too, it is one fire
            instant = end
        return total

    def notes(self, fire: datetime) -> tuple[str, ...]:
        """See `Schedule`."""
        instant = instant_of(fire)
        stretch = self.zone.stretch(instant)
        notes = [*self._gaps_before(instant)]
        wall = instant + stretch.offset
        if wall < stretch.start + stretch.before:
            notes.append(f"{_time(wall)} comes twice on {_date(wall)}: this is the second time")
        following = self.zone.stretch(stretch.end)
        if wall >= following.start + following.offset:
            often = "this is the first time" if self._elapsed else "fires once, the first time"
            notes.append(f"{_time(wall)} comes twice on {_date(wall)}: {often}")
        return tuple(notes)

    def _first_wall(self, stretch: Stretch) -> int:
        """Return the first local time that counts in a stretch: those that come a second time have had their turn."""
        start = stretch.start + stretch.offset
        return start if self._elapsed else max(start, stretch.start + stretch.before)

    def _lands_after_gap(self, stretch: Stretch) -> bool:
        """Say whether a local time left out before this stretch fires at its start."""
        return self._shift and self._left_out(stretch) > 0

    def _left_out(self, stretch: Stretch) -> int:
        """Return how many matching local times do not exist because the clock went forward at the stretch's start."""
        return self._wall.count(stretch.start + stretch.before, stretch.start + stretch.offset)

    def _gaps_before(self, instant: int) -> list[str]:
        """Return a note for each gap since the fire before that swallowed a matching time."""
        if self._elapsed:
            return []
        notes: list[str] = []
        before = self.previous_second(instant - 1)
        stretch = self.zone.stretch(instant)
        while before is not None and stretch.start > before:
            count = self._left_out(stretch)
            wall = self._wall.next(stretch.start + stretch.before)
            if count and wall is not None:
                what = f"local time {_time(wall)}" + (f" and {count - 1} more" if count > 1 else "")
                does = "does" if count == 1 else "do"
                fate = f"shifted to {_time(stretch.start + stretch.offset)}" if self._shift else "skipped"
                notes.insert(0, f"{what} {does} not exist on {_date(wall)}: {fate}")
            stretch = self.zone.stretch(stretch.start - 1)
        return notes


def parse_schedule(
    expression: str, timezone: str, *, hash_id: str, dst_gap: DstGap = "skip", anchor: datetime | None = None
) -> Schedule:
    """Return the schedule that an expression stands for; equal arguments give the same object.

    `hash_id` (the task's name) is what `H` is hashed by; `anchor` (the task's creation, rounded down to a second) is
    where `@every` counts from, 1970 if not given. Raises ValueError, which says what is wrong and what would be right.
    """
    expression = " ".join(expression[: _LONGEST_EXPRESSION + 1].split())
    if len(expression) > _LONGEST_EXPRESSION:
        raise ValueError(f"a schedule has {_LONGEST_EXPRESSION} characters at most")
    macro, _, argument = expression.partition(" ")
    if macro.lower() == "@event":
        return _event(argument, timezone)
    if expression.startswith("@"):
        expression = expression.lower()
    if not expression.startswith("@every"):
        # What does not matter is left out of the key, so that thousands of tasks share one schedule.
        return _cron(expression, timezone, hash_id if is_hashed(expression) else "", dst_gap)
    return _every(expression, timezone, 0 if anchor is None else instant_of(anchor))


@lru_cache(maxsize=16384)
def _cron(expression: str, timezone: str, hash_id: str, dst_gap: DstGap) -> Schedule:
    zone = zone_named(timezone)
    if expression == "@reboot":
        raise ValueError("@reboot is not a time: run a one-off task when the machine starts")
    if not expression.isascii():
        raise ValueError("a schedule is written in ASCII")
    if not expression:
        raise ValueError('a schedule is empty: write five fields such as "30 2 * * *", or a macro such as @daily')
    if expression[0] == "@" and expression not in MACROS:
        macro, known = expression.partition(" ")[0], ", ".join(MACROS)
        raise ValueError(f"{macro} is unknown: write {known}, @every followed by a duration, or @event and a name")
    return CronSchedule(expression, zone, hash_id, dst_gap)


@lru_cache(maxsize=16384)
def _every(expression: str, timezone: str, anchor: int) -> Schedule:
    zone = zone_named(timezone)
    try:
        period = parse_duration(expression.removeprefix("@every "))
    except ValueError:
        period = 0.0
    if period < 1 or period != int(period):
        raise ValueError(f'{expression!r} needs whole seconds, one or more, as in "@every 90s" or "@every 1h30m"')
    return EverySchedule(expression, zone, int(period), anchor)


@lru_cache(maxsize=16384)
def _event(name: str, timezone: str) -> Schedule:
    zone = zone_named(timezone)
    if not EVENT_NAME.fullmatch(name):
        raise ValueError(
            f"{name[:60]!r} names no event: write @event and a name of letters, digits, '.', '_' and '-' (not stream)"
        )
    return EventSchedule(on_event(name), zone)


def _time(wall: int) -> str:
    text = f"{moment_of(wall):%H:%M:%S}"
    return text.removesuffix(":00")


def _date(wall: int) -> str:
    return f"{moment_of(wall):%Y-%m-%d}"
