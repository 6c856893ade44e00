"""Schedules through changes of local time, checked against a search that knows nothing of ours: it walks over every
instant of a window with `zoneinfo` and applies the rule of the documentation word by word."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

import pytest

from scheduler.domain.cron import parse_schedule

Matcher = Callable[[datetime], bool]
Window = list[tuple[datetime, datetime]]

CHANGES = [
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("Europe/Dublin", "2026-03-29"),  # winter is its daylight saving time, with a negative shift
    ("Europe/Dublin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"),  # half an hour
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Australia/Sydney", "2026-04-05"),
    ("Australia/Sydney", "2026-10-04"),
    ("America/Sao_Paulo", "2017-10-15"),  # midnight does not exist
    ("America/Sao_Paulo", "2018-02-18"),  # 23:00 comes twice
    ("America/Havana", "2026-03-08"),  # midnight does not exist
    ("America/Havana", "2025-11-02"),  # midnight comes twice
    ("Africa/Cairo", "2026-04-24"),
    ("Africa/Casablanca", "2025-02-23"),  # Ramadan
    ("Africa/Casablanca", "2025-04-06"),
    ("Pacific/Chatham", "2026-04-05"),  # 12:45 east
    ("Pacific/Chatham", "2026-09-27"),
    ("Pacific/Apia", "2011-12-30"),  # a whole day does not exist
    ("Antarctica/Troll", "2026-03-29"),  # two hours
    ("Antarctica/Troll", "2026-10-25"),
    ("Asia/Pyongyang", "2018-05-05"),  # a new standard time
    ("America/Caracas", "2016-05-01"),
    ("Asia/Kathmandu", "2026-03-29"),  # nothing happens
    ("UTC", "2026-03-29"),
    ("UTC", "2026-12-31"),
]

# Each expression beside a reading of it that was written by hand, and whether it names every hour.
EXPRESSIONS: list[tuple[str, Matcher, bool]] = [
    ("*/30 * * * *", lambda t: t.minute % 30 == 0, True),
    ("0 * * * *", lambda t: t.minute == 0, True),
    ("17 0-23 * * *", lambda t: t.minute == 17, True),
    ("30 2 * * *", lambda t: (t.hour, t.minute) == (2, 30), False),
    ("30 1 * * *", lambda t: (t.hour, t.minute) == (1, 30), False),
    ("15 2 * * *", lambda t: (t.hour, t.minute) == (2, 15), False),
    ("0 0 * * *", lambda t: (t.hour, t.minute) == (0, 0), False),
    ("30 23 * * *", lambda t: (t.hour, t.minute) == (23, 30), False),
    ("0 3 * * *", lambda t: (t.hour, t.minute) == (3, 0), False),
    ("*/20 0-3 * * *", lambda t: t.hour <= 3 and t.minute % 20 == 0, False),
    ("5 */2 * * *", lambda t: t.hour % 2 == 0 and t.minute == 5, False),
    ("0 12 30 12 *", lambda t: (t.month, t.day, t.hour, t.minute) == (12, 30, 12, 0), False),
    ("59 2 * * SUN", lambda t: t.isoweekday() == 7 and (t.hour, t.minute) == (2, 59), False),
]


@cache
def walk(zone: str, day: str, step: timedelta, around: timedelta) -> Window:
    """Return every (instant, local time) of the window around noon of `day`."""
    noon = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    info = ZoneInfo(zone)
    window = []
    instant = noon - around
    while instant < noon + around:
        window.append((instant, instant.astimezone(info)))
        instant += step
    return window


def expected(window: Window, step: timedelta, matches: Matcher, every_hour: bool, gap: str) -> list[datetime]:
    """The rule: every hour named → each instant that matches; else first occurrences, and a gap skips or shifts."""
    fires = []
    before: datetime | None = None
    for instant, aware in window:
        local = aware.replace(tzinfo=None, fold=0)
        fire = matches(local) and (every_hour or aware.fold == 0)
        if before is not None and not every_hour and gap == "shift":
            missing = before + step
            while missing < local and not fire:
                fire = matches(missing)
                missing += step
        if fire:
            fires.append(instant)
        before = local
    return fires


def check(expression: str, zone: str, gap: Literal["skip", "shift"], window: Window, fires: list[datetime]) -> None:
    schedule = parse_schedule(expression, zone, hash_id="x", dst_gap=gap)
    start, end = window[0][0] - timedelta(seconds=1), window[-1][0]
    assert schedule.between(start, end, 10**6) == fires
    backwards = []
    fire = schedule.previous_at_or_before(end)
    while fire is not None and fire > start:
        backwards.append(fire)
        fire = schedule.previous_at_or_before(fire - timedelta(microseconds=1))
    assert backwards[::-1] == fires
    assert schedule.count(int(start.timestamp()), int(end.timestamp())) == len(fires)


@pytest.mark.parametrize("gap", ["skip", "shift"])
@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_every_minute_around_a_change_of_local_time_agrees_with_the_rule(
    zone: str, day: str, gap: Literal["skip", "shift"]
) -> None:
    step = timedelta(minutes=1)
    window = walk(zone, day, step, timedelta(hours=60))
    for expression, matches, every_hour in EXPRESSIONS:
        check(expression, zone, gap, window, expected(window, step, matches, every_hour, gap))


@pytest.mark.parametrize("gap", ["skip", "shift"])
@pytest.mark.parametrize(
    ("zone", "day", "expression", "matches"),
    [
        ("Europe/Berlin", "2026-03-29", "*/20 59 2 * * *", lambda t: (t.second % 20, t.minute, t.hour) == (0, 59, 2)),
        ("Europe/Berlin", "2026-10-25", "30 0,59 2 * * *", lambda t: (t.second, t.minute % 59, t.hour) == (30, 0, 2)),
        # Liberia left 44 minutes and 30 seconds out.
        ("Africa/Monrovia", "1972-01-07", "15 */10 0 * * *", lambda t: (t.second, t.minute % 10, t.hour) == (15, 0, 0)),
    ],
)
def test_every_second_around_a_change_of_local_time_agrees_with_the_rule(
    zone: str, day: str, expression: str, matches: Matcher, gap: Literal["skip", "shift"]
) -> None:
    step = timedelta(seconds=1)
    window = walk(zone, day, step, timedelta(hours=13))
    check(expression, zone, gap, window, expected(window, step, matches, every_hour=False, gap=gap))


def test_every_half_hour_means_thirty_real_minutes_through_both_changes() -> None:
    for zone in ("America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Australia/Sydney"):
        schedule = parse_schedule("*/30 * * * *", zone, hash_id="x")
        fires = schedule.between(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), 10**6)
        gaps = {later - earlier for earlier, later in pairwise(fires)}
        assert gaps == {timedelta(minutes=30)}


def test_a_daily_time_in_the_gap_is_skipped_and_said_so() -> None:
    schedule = parse_schedule("30 2 * * *", "Europe/Berlin", hash_id="x")
    fire = schedule.next_after(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert fire == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
    assert schedule.notes(fire) == ("local time 02:30 does not exist on 2026-03-29: skipped",)
    assert schedule.notes(datetime(2026, 3, 31, 0, 30, tzinfo=UTC)) == ()


def test_a_daily_time_in_the_gap_can_be_shifted_and_is_said_so() -> None:
    schedule = parse_schedule("15,30 2 * * *", "Europe/Berlin", hash_id="x", dst_gap="shift")
    fire = schedule.next_after(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert fire == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert schedule.notes(fire) == ("local time 02:15 and 1 more do not exist on 2026-03-29: shifted to 03:00",)


def test_a_time_that_comes_twice_fires_once_and_is_said_so() -> None:
    schedule = parse_schedule("30 1 * * *", "America/New_York", hash_id="x")
    first = schedule.next_after(datetime(2026, 10, 31, 12, tzinfo=UTC))
    assert first == datetime(2026, 11, 1, 5, 30, tzinfo=UTC)
    assert schedule.next_after(first) == datetime(2026, 11, 2, 6, 30, tzinfo=UTC)
    assert schedule.notes(first) == ("01:30 comes twice on 2026-11-01: fires once, the first time",)


def test_a_schedule_of_every_hour_notes_which_of_two_equal_times_it_fires_at() -> None:
    schedule = parse_schedule("30 * * * *", "America/New_York", hash_id="x")
    first, second = schedule.between(datetime(2026, 11, 1, 5, tzinfo=UTC), datetime(2026, 11, 1, 7, tzinfo=UTC), 9)
    assert schedule.notes(first) == ("01:30 comes twice on 2026-11-01: this is the first time",)
    assert schedule.notes(second) == ("01:30 comes twice on 2026-11-01: this is the second time",)


def test_the_day_that_samoa_left_out_has_no_fires_but_a_shifted_one() -> None:
    noon_of_the_day = "0 12 30 12 *"
    skipping = parse_schedule(noon_of_the_day, "Pacific/Apia", hash_id="x")
    shifting = parse_schedule(noon_of_the_day, "Pacific/Apia", hash_id="x", dst_gap="shift")
    before = datetime(2011, 6, 1, tzinfo=UTC)
    assert skipping.next_after(before) == datetime(2012, 12, 29, 22, tzinfo=UTC)
    assert shifting.next_after(before) == datetime(2011, 12, 30, 10, tzinfo=UTC)  # 00:00 on the 31st
