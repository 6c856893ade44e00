"""Properties that hold for every expression, zone and moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.cron import parse_schedule
from scheduler.domain.schedule import Schedule

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia",
         "Africa/Casablanca", "Pacific/Chatham", "America/Havana", "Asia/Kolkata"]  # fmt: skip

Choice = frozenset[int]
Chosen = tuple[tuple[str, Choice], ...]
Gap = Literal["skip", "shift"]


def field(low: int, high: int) -> st.SearchStrategy[tuple[str, Choice]]:
    """A field as text, and the numbers that it means, worked out here."""
    number = st.integers(low, high)
    step = st.integers(1, high - low + 1)
    return st.one_of(
        st.just(("*", frozenset(range(low, high + 1)))),
        step.map(lambda n: (f"*/{n}", frozenset(range(low, high + 1, n)))),
        st.tuples(number, number, step).map(
            lambda t: (f"{min(t[:2])}-{max(t[:2])}/{t[2]}", frozenset(range(min(t[:2]), max(t[:2]) + 1, t[2])))
        ),
        st.sets(number, min_size=1, max_size=4).map(lambda s: (",".join(map(str, s)), frozenset(s))),
    )


fields = st.tuples(field(0, 59), field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6))
moments = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
gaps = st.sampled_from(["skip", "shift"])


def schedule_of(chosen: Chosen, zone: str, gap: Gap) -> Schedule:
    return parse_schedule(" ".join(text for text, _ in chosen), zone, hash_id="x", dst_gap=gap)


def matches(chosen: Chosen, local: datetime) -> bool:
    seconds, minutes, hours, days, months, weekdays = (numbers for _, numbers in chosen)
    day, weekday = local.day in days, local.isoweekday() % 7 in weekdays
    star = chosen[3][0][0] == "*" or chosen[5][0][0] == "*"
    return (
        local.second in seconds
        and local.minute in minutes
        and local.hour in hours
        and local.month in months
        and (day and weekday if star else day or weekday)
    )


def possible(chosen: Chosen) -> bool:
    try:
        schedule_of(chosen, "UTC", "skip")
    except ValueError:
        return False
    return True


@settings(deadline=None)
@given(fields.filter(possible), st.sampled_from(ZONES), gaps, moments)
def test_fires_strictly_increase_and_going_back_finds_them_again(
    chosen: Chosen, zone: str, gap: Gap, moment: datetime
) -> None:
    schedule = schedule_of(chosen, zone, gap)
    before = moment
    for _ in range(5):
        fire = schedule.next_after(before)
        assert fire is not None
        assert fire > before
        assert schedule.previous_at_or_before(fire) == fire
        previous = schedule.previous_at_or_before(fire - timedelta(microseconds=1))
        assert previous is None or previous <= before
        assert schedule.next_after(fire - timedelta(seconds=1)) == fire
        before = fire


@settings(deadline=None)
@given(fields.filter(possible), st.sampled_from(ZONES), moments)
def test_every_fire_matches_its_fields(chosen: Chosen, zone: str, moment: datetime) -> None:
    schedule = schedule_of(chosen, zone, "skip")
    for fire in schedule.between(moment, datetime(2100, 1, 1, tzinfo=UTC), 5):
        assert matches(chosen, schedule.local(fire))
    previous = schedule.previous_at_or_before(moment)
    assert previous is None or matches(chosen, schedule.local(previous))


@settings(max_examples=50, deadline=None)
@given(fields.filter(possible), st.sampled_from(ZONES), gaps, moments, st.integers(0, 40 * 86400))
def test_counting_agrees_with_walking(chosen: Chosen, zone: str, gap: Gap, moment: datetime, seconds: int) -> None:
    schedule = schedule_of(chosen, zone, gap)
    fires = schedule.between(moment, moment + timedelta(seconds=seconds), 3000)
    until = fires[-1] if len(fires) == 3000 else moment + timedelta(seconds=seconds)
    assert schedule.count(int(moment.timestamp()), int(until.timestamp())) == len(fires)


@settings(max_examples=50, deadline=None)
@given(fields.filter(possible), st.sampled_from(ZONES), moments)
def test_no_second_between_two_fires_matches(chosen: Chosen, zone: str, moment: datetime) -> None:
    schedule = schedule_of(chosen, zone, "skip")
    fire = schedule.next_after(moment)
    assert fire is not None
    first = moment.replace(microsecond=0) + timedelta(seconds=1)
    for seconds in range(min(int((fire - first).total_seconds()), 4000)):
        local = schedule.local(first + timedelta(seconds=seconds))
        assert not matches(chosen, local) or local.fold == 1
