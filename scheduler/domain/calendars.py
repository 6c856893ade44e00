"""Calendars: times at which schedules do not fire, as a zone's own clock shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from scheduler.domain import text
from scheduler.domain.complaints import Complaints
from scheduler.domain.task import Body, Name
from scheduler.domain.zones import zone_named

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

Blackout = Callable[[int], bool]
"""Called with an instant, in seconds since 1970 UTC: whether nothing fires then."""

_WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class DateRange(Body, frozen=True, kw_only=True):
    """Whole days, both ends included."""

    start: date = msgspec.field(name="from")
    end: date = msgspec.field(name="to")


class WeeklyRule(Body, frozen=True, kw_only=True):
    """The same on every such day: from `from` until shortly before `to`, or until the end of the day."""

    days: Annotated[list[Weekday], Meta(min_length=1, max_length=7)]
    start: time = msgspec.field(name="from", default=time(0))
    end: time | None = msgspec.field(name="to", default=None)


class Calendar(Body, frozen=True, kw_only=True):
    """When nothing fires: on these days, in these ranges of days, at these times of the week, by the zone's clock."""

    timezone: str = "UTC"
    dates: Annotated[list[date], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    ranges: Annotated[list[DateRange], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    weekly: Annotated[list[WeeklyRule], Meta(max_length=100)] = msgspec.field(default_factory=list)


class NamedCalendar(Calendar, frozen=True, kw_only=True):
    """A calendar and what it is called."""

    name: Name


encode_calendar = msgspec.json.Encoder().encode
decode_calendar = msgspec.json.Decoder(Calendar).decode


def check_calendar(calendar: Calendar) -> None:
    """Raise InvalidInput with everything that makes no sense."""
    found = Complaints("")
    if isinstance(calendar, NamedCalendar):
        found.text("name", calendar.name, text.label)
        if "/" in calendar.name:
            found.add("name", "holds a slash: calendars are addressed by name")
    try:
        zone_named(calendar.timezone)
    except ValueError as error:
        found.add("timezone", str(error))
    for n, stretch in enumerate(calendar.ranges):
        if stretch.end < stretch.start:
            found.add(f"ranges/{n}/to", "is before from: write a later day")
    _check_weekly(calendar.weekly, found)
    if not (calendar.dates or calendar.ranges or calendar.weekly):
        found.add("dates", "the calendar holds nothing: write dates, ranges or weekly")
    found.raise_any()


def _check_weekly(rules: Sequence[WeeklyRule], found: Complaints) -> None:
    for n, rule in enumerate(rules):
        for field, moment in (("from", rule.start), ("to", rule.end)):
            if moment is not None and moment.tzinfo is not None:
                found.add(f"weekly/{n}/{field}", "has an offset: the calendar's zone decides")
        if rule.end is not None and rule.end.replace(tzinfo=None) <= rule.start.replace(tzinfo=None):
            found.add(f"weekly/{n}/to", "is not after from: write a later time, or leave it out for the end of the day")


def blackout_of(calendars: Sequence[Calendar]) -> Blackout | None:
    """Return what tells whether one of these calendars covers an instant, None if there are none."""
    tests = [_test(calendar) for calendar in calendars]
    return (lambda instant: any(test(instant) for test in tests)) if tests else None


def _test(calendar: Calendar) -> Blackout:
    zone = zone_named(calendar.timezone).info
    dates = frozenset(calendar.dates)
    weekly: dict[int, list[WeeklyRule]] = {}
    for rule in calendar.weekly:
        for day in rule.days:
            weekly.setdefault(_WEEKDAYS.index(day), []).append(rule)

    def covers(instant: int) -> bool:
        local = datetime.fromtimestamp(instant, zone)
        today, clock = local.date(), local.time()
        if today in dates or any(stretch.start <= today <= stretch.end for stretch in calendar.ranges):
            return True
        rules = weekly.get(today.weekday(), ())
        return any(rule.start <= clock and (rule.end is None or clock < rule.end) for rule in rules)

    return covers
