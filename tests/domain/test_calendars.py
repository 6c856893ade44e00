from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler.domain.calendars import Calendar, DateRange, NamedCalendar, WeeklyRule, blackout_of, check_calendar
from scheduler.domain.cron import parse_schedule
from scheduler.domain.errors import InvalidInput
from scheduler.domain.fires import Firing, decide
from scheduler.domain.task import TaskSpec

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)  # a Tuesday
BERLIN = "Europe/Berlin"


def covers(calendar: Calendar, moment: str) -> bool:
    blackout = blackout_of([calendar])
    assert blackout is not None
    return blackout(int(datetime.fromisoformat(moment).timestamp()))


@pytest.mark.parametrize(
    ("calendar", "inside", "outside"),
    [
        (Calendar(dates=[date(2026, 12, 25)]), "2026-12-25T23:59:59Z", "2026-12-26T00:00:00Z"),
        (Calendar(dates=[date(2026, 12, 25)], timezone=BERLIN), "2026-12-24T23:00:00Z", "2026-12-25T23:00:00Z"),
        (
            Calendar(ranges=[DateRange(start=date(2026, 7, 1), end=date(2026, 7, 31))]),
            "2026-07-31T12:00:00Z",
            "2026-08-01T00:00:00Z",
        ),
        (Calendar(weekly=[WeeklyRule(days=["sat", "sun"])]), "2026-03-14T00:00:00Z", "2026-03-13T23:59:59Z"),
        (
            Calendar(weekly=[WeeklyRule(days=["tue"], start=time(9), end=time(17))], timezone=BERLIN),
            "2026-03-10T08:00:00Z",
            "2026-03-10T16:00:00Z",
        ),
        # An hour later by UTC than the week before: the zone's clock has gone forward.
        (
            Calendar(weekly=[WeeklyRule(days=["tue"], start=time(9), end=time(17))], timezone=BERLIN),
            "2026-03-31T07:00:00Z",
            "2026-03-31T15:00:00Z",
        ),
    ],
)
def test_a_calendar_covers_what_its_zone_shows(calendar: Calendar, inside: str, outside: str) -> None:
    assert covers(calendar, inside)
    assert not covers(calendar, outside)


@pytest.mark.parametrize(
    ("calendar", "pointer"),
    [
        (Calendar(), "/dates"),
        (Calendar(timezone="Mars"), "/timezone"),
        (Calendar(ranges=[DateRange(start=date(2026, 2, 2), end=date(2026, 2, 1))]), "/ranges/0/to"),
        (Calendar(weekly=[WeeklyRule(days=["mon"], start=time(9), end=time(9))]), "/weekly/0/to"),
        (Calendar(weekly=[WeeklyRule(days=["mon"], start=time(9, tzinfo=UTC))]), "/weekly/0/from"),
        (NamedCalendar(name="a/b", dates=[date(2026, 1, 1)]), "/name"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(calendar: Calendar, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_calendar(calendar)
    assert pointer in [error.pointer for error in refused.value.errors]


def hourly(hours: int, out: set[int], **fields: Any) -> Firing:
    """The decision about an hourly task that was last decided `hours` ago; `out`: hours ago that are blacked out."""
    spec = TaskSpec(name="t", command="true", schedule="0 * * * *", catchup_window=100 * 3600.0, **fields)
    schedule = parse_schedule("0 * * * *", "UTC", hash_id="t", dst_gap="skip", anchor=NOON)
    blacked = {int((NOON - timedelta(hours=n)).timestamp()) for n in out}
    return decide(
        UUID(int=1),
        spec,
        schedule,
        cursor=NOON - timedelta(hours=hours),
        now=NOON,
        active=0,
        blackout=lambda instant: instant in blacked,
    )


def test_a_fire_in_a_blackout_is_skipped_and_takes_no_part_in_catching_up() -> None:
    assert [f.disposition for f in hourly(1, {0}).fires] == ["skipped:calendar"]
    last = hourly(3, {1}, catchup="last").fires
    assert [(f.disposition, f.run_at is not None) for f in last] == [
        ("coalesced", False),
        ("skipped:calendar", False),
        ("fired", True),
    ]
    late = hourly(3, {0}, catchup="last").fires
    assert [f.disposition for f in late] == ["coalesced", "late", "skipped:calendar"]
    every = hourly(3, {2}, catchup="all", overlap="allow_all").fires
    assert [f.disposition for f in every] == ["skipped:calendar", "late", "fired"]


def test_every_fire_has_a_disposition_although_all_are_blacked_out() -> None:
    firing = hourly(150, set(range(150)), catchup="last")
    assert sum(fire.count for fire in firing.fires) == 150
    assert {f.disposition for f in firing.fires} == {"missed", "skipped:calendar"}
    assert [f.scheduled_for for f in firing.fires] == sorted(f.scheduled_for for f in firing.fires)
