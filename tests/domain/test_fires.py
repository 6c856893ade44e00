"""The leader's decision about fires that have come due."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from scheduler.domain.cron import parse_schedule
from scheduler.domain.fires import CATCHUP_CAP, ON_TIME, Fire, Firing, decide, jitter_of, left_behind, next_fire_at
from scheduler.domain.schedule import Schedule
from scheduler.domain.task import TaskSpec

TASK = UUID("01890000-0000-7000-8000-000000000001")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def fire(
    schedule: str = "* * * * *",
    *,
    cursor: datetime = NOON - MINUTE,
    now: datetime = NOON + timedelta(seconds=1),
    active: int = 0,
    **rest: Any,
) -> Firing:
    spec = TaskSpec(name="job", command="true", schedule=schedule, **rest)
    return decide(TASK, spec, parse_schedule(schedule, "UTC", hash_id="job"), cursor=cursor, now=now, active=active)


def brief(firing: Firing) -> list[tuple[str, str]]:
    return [(f"{f.scheduled_for:%H:%M}", f.disposition) for f in firing.fires]


def test_one_fire_that_is_due_makes_a_run_at_its_own_moment() -> None:
    assert fire() == Firing(
        fires=[Fire(scheduled_for=NOON, disposition="fired", run_at=NOON)], cursor=NOON, next_fire_at=NOON + MINUTE
    )


def test_nothing_due_changes_nothing() -> None:
    firing = fire(cursor=NOON, now=NOON + timedelta(seconds=59))
    assert firing == Firing(fires=[], cursor=NOON, next_fire_at=NOON + MINUTE)


def test_a_clock_that_went_back_changes_nothing() -> None:
    firing = fire(cursor=NOON, now=NOON - HOUR)
    assert firing == Firing(fires=[], cursor=NOON, next_fire_at=NOON + MINUTE)


def test_a_single_late_fire_runs_now_and_says_that_it_is_late() -> None:
    now = NOON + timedelta(seconds=ON_TIME + 1)
    (only,) = fire(now=now).fires
    assert (only.disposition, only.run_at) == ("late", now)


def test_catchup_none_misses_late_fires_in_one_stretch_and_still_fires_on_time() -> None:
    firing = fire(cursor=NOON - HOUR, catchup="none")
    assert firing.fires == [
        Fire(scheduled_for=NOON - 59 * MINUTE, disposition="missed", until=NOON - MINUTE, count=59),
        Fire(scheduled_for=NOON, disposition="fired", run_at=NOON),
    ]


def test_catchup_last_coalesces_into_the_fire_that_is_on_time() -> None:
    firing = fire(cursor=NOON - 3 * MINUTE)
    assert brief(firing) == [("11:58", "coalesced"), ("11:59", "coalesced"), ("12:00", "fired")]
    assert [f.absorbed_by for f in firing.fires] == [NOON, NOON, None]


def test_catchup_last_runs_the_newest_late_fire_if_none_is_on_time() -> None:
    firing = fire(cursor=NOON - 3 * MINUTE, now=NOON + timedelta(seconds=30))
    assert brief(firing) == [("11:58", "coalesced"), ("11:59", "coalesced"), ("12:00", "late")]
    assert firing.fires[-1].run_at == NOON + timedelta(seconds=30)


def test_fires_older_than_the_window_are_missed() -> None:
    firing = fire(cursor=NOON - HOUR, catchup_window=120.0, now=NOON + timedelta(seconds=30))
    assert firing.fires[0] == Fire(
        scheduled_for=NOON - 59 * MINUTE, disposition="missed", until=NOON - 2 * MINUTE, count=58
    )
    assert brief(firing)[1:] == [("11:59", "coalesced"), ("12:00", "late")]


def test_coalesced_fires_beyond_the_cap_are_one_stretch_between_the_missed_and_the_others() -> None:
    firing = fire(cursor=NOON - 10 * HOUR, catchup_window=5 * 3600.0, now=NOON + timedelta(seconds=30))
    missed, stretch, *single, last = firing.fires
    assert (missed.disposition, missed.count, missed.until) == ("missed", 300, NOON - 5 * HOUR)
    assert (stretch.disposition, stretch.count, stretch.absorbed_by) == ("coalesced", 300 - CATCHUP_CAP, NOON)
    assert stretch.scheduled_for == NOON - 5 * HOUR + MINUTE
    assert {f.disposition for f in single} == {"coalesced"}
    assert len(single) == CATCHUP_CAP - 1
    assert last.disposition == "late"


def test_a_fire_exactly_as_old_as_the_window_is_not_missed() -> None:
    for window in (180.0, 4 * 3600.0):
        firing = fire(cursor=NOON - 10 * HOUR, catchup_window=window + 30, now=NOON + timedelta(seconds=30))
        assert firing.fires[0].until == NOON - timedelta(seconds=window) - MINUTE
        assert firing.fires[1].scheduled_for == NOON - timedelta(seconds=window)


def test_catchup_all_runs_its_fires_one_by_one_despite_skip() -> None:
    firing = fire(cursor=NOON - 3 * MINUTE, catchup="all")
    assert brief(firing) == [("11:58", "late"), ("11:59", "late"), ("12:00", "fired")]
    assert [f.waits for f in firing.fires] == [False, True, True]
    assert [f.waits for f in fire(cursor=NOON - 3 * MINUTE, catchup="all", active=1).fires] == [True, True, True]


def test_catchup_all_runs_side_by_side_if_all_are_allowed() -> None:
    firing = fire(cursor=NOON - 3 * MINUTE, catchup="all", overlap="allow_all")
    assert [f.waits for f in firing.fires] == [False, False, False]


def test_beyond_the_cap_catchup_all_misses_the_oldest() -> None:
    firing = fire(cursor=NOON - 5 * HOUR, catchup="all", catchup_window=86400.0, now=NOON + timedelta(seconds=30))
    missed, *runs = firing.fires
    assert missed == Fire(
        scheduled_for=NOON - 5 * HOUR + MINUTE, disposition="missed", until=NOON - 100 * MINUTE, count=200
    )
    assert len(runs) == CATCHUP_CAP
    assert {f.disposition for f in runs} == {"late"}


def test_skip_refuses_a_fire_beside_an_active_run() -> None:
    assert brief(fire(active=1)) == [("12:00", "skipped:overlap")]


def test_fires_that_would_have_been_coalesced_into_a_refused_one_share_its_fate() -> None:
    firing = fire(cursor=NOON - 3 * MINUTE, active=1)
    assert {f.disposition for f in firing.fires} == {"skipped:overlap"}
    assert all(f.absorbed_by is None for f in firing.fires)


def test_buffer_one_lets_one_wait() -> None:
    assert [f.waits for f in fire(active=1, overlap="buffer_one").fires] == [True]
    assert brief(fire(active=2, overlap="buffer_one")) == [("12:00", "skipped:overlap")]


def test_several_fires_on_time_each_follow_the_overlap_policy() -> None:
    every_second: Any = {"schedule": "* * * * * *", "cursor": NOON, "now": NOON + timedelta(seconds=3)}
    assert Counter(f.disposition for f in fire(**every_second).fires) == {"fired": 1, "skipped:overlap": 2}
    assert Counter(f.disposition for f in fire(**every_second, overlap="buffer_one").fires) == {
        "fired": 2,
        "skipped:overlap": 1,
    }
    assert Counter(f.disposition for f in fire(**every_second, overlap="allow_all").fires) == {"fired": 3}


def test_the_newest_wins_under_cancel_other_and_waits_for_the_end_of_the_others() -> None:
    firing = fire("* * * * * *", cursor=NOON, now=NOON + timedelta(seconds=3), overlap="cancel_other", active=2)
    assert [f.disposition for f in firing.fires] == ["coalesced", "coalesced", "fired"]
    assert firing.cancel == "cancel"
    assert firing.fires[-1].waits


def test_terminate_other_does_not_wait_and_cancels_nothing_if_nothing_is_active() -> None:
    firing = fire(overlap="terminate_other", active=1)
    assert (firing.cancel, firing.fires[0].waits) == ("terminate", False)
    assert fire(overlap="terminate_other").cancel is None


def test_only_fires_between_start_and_end_are_planned_both_included() -> None:
    bounds: Any = {"starts_at": NOON - 2 * MINUTE, "ends_at": NOON - MINUTE, "overlap": "allow_all", "catchup": "all"}
    firing = fire(cursor=NOON - HOUR, now=NOON + HOUR, catchup_window=86400.0, **bounds)
    assert brief(firing) == [("11:58", "late"), ("11:59", "late")]
    assert firing.next_fire_at is None
    between: Any = {
        "starts_at": NOON + timedelta(milliseconds=1),
        "ends_at": NOON + 2 * MINUTE - timedelta(microseconds=1),
    }
    spec = TaskSpec(name="job", command="true", schedule="* * * * *", **between)
    schedule = parse_schedule("* * * * *", "UTC", hash_id="job")
    assert next_fire_at(schedule, spec, NOON - HOUR) == NOON + MINUTE
    assert next_fire_at(schedule, spec, NOON + MINUTE) is None


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({}, (NOON - 59 * MINUTE, NOON, 60)),
        ({"starts_at": NOON - 2 * MINUTE, "ends_at": NOON - MINUTE}, (NOON - 2 * MINUTE, NOON - MINUTE, 2)),
        ({"ends_at": NOON - HOUR}, None),
        ({"starts_at": NOON + MINUTE}, None),
    ],
)
def test_what_a_plan_that_is_given_up_leaves_behind_is_one_missed_stretch(bounds: Any, found: Any) -> None:
    spec = TaskSpec(name="job", command="true", schedule="* * * * *", catchup="all", **bounds)
    schedule = parse_schedule("* * * * *", "UTC", hash_id="job")
    stretch = left_behind(spec, schedule, cursor=NOON - HOUR, now=NOON + timedelta(seconds=30))
    expected = found and Fire(scheduled_for=found[0], disposition="missed", until=found[1], count=found[2])
    assert stretch == expected


def test_before_its_start_a_task_knows_its_first_fire() -> None:
    firing = fire(starts_at=NOON + HOUR)
    assert firing == Firing(fires=[], cursor=NOON - MINUTE, next_fire_at=NOON + HOUR)


def test_jitter_delays_the_run_by_a_fixed_part_of_it_that_differs_between_fires() -> None:
    (first,) = fire(jitter=30.0).fires
    assert fire(jitter=30.0).fires == [first]
    assert first.scheduled_for == NOON
    assert first.run_at is not None
    assert timedelta(0) <= first.run_at - NOON < timedelta(seconds=30)
    delays = [jitter_of(TASK, second, 30.0) for second in range(1000)]
    assert len(set(delays)) == 1000
    assert min(delays) < 1
    assert max(delays) > 29


class Counting(Schedule):
    """A schedule that counts the searches made in it."""

    def __init__(self, inner: Schedule) -> None:
        super().__init__(inner.expression, inner.zone)
        self.inner = inner
        self.searches = 0

    def next_second(self, after: int) -> int | None:
        self.searches += 1
        return self.inner.next_second(after)

    def previous_second(self, at: int) -> int | None:
        self.searches += 1
        return self.inner.previous_second(at)

    def count(self, after: int, until: int) -> int:
        self.searches += 1
        return self.inner.count(after, until)


@pytest.mark.parametrize("catchup", ["none", "last", "all"])
def test_a_year_without_a_leader_is_decided_without_walking_through_it(catchup: Any) -> None:
    year = timedelta(days=365)
    schedule = Counting(parse_schedule("* * * * * *", "UTC", hash_id="job"))
    spec = TaskSpec(name="job", command="true", catchup=catchup, catchup_window=year.total_seconds())
    firing = decide(TASK, spec, schedule, cursor=NOON - year, now=NOON, active=0)
    assert sum(f.count for f in firing.fires) == year.total_seconds()
    assert len(firing.fires) <= 2 * CATCHUP_CAP
    assert schedule.searches <= 2 * CATCHUP_CAP


schedules = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "0 * * * *",
        "30 2 * * *",
        "*/10 * * * * *",
        "@every 45s",
        "0 9 * * MON",
        "0 0 0 1 7 * 2026",
    ]
)
offsets = st.one_of(st.integers(0, 600), st.integers(0, 20 * 86400)).map(lambda n: timedelta(seconds=n))


specs = st.builds(
    TaskSpec,
    name=st.just("job"),
    command=st.just("true"),
    schedule=schedules,
    timezone=st.sampled_from(["UTC", "Europe/Berlin"]),
    catchup=st.sampled_from(["none", "last", "all"]),
    overlap=st.sampled_from(["skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all"]),
    catchup_window=st.sampled_from([0.0, 60.0, 3600.0, 86400.0, 30 * 86400.0]),
)


@settings(max_examples=300, deadline=None)
@given(
    spec=specs,
    cursor=st.datetimes(datetime(2026, 3, 20), datetime(2026, 4, 20), timezones=st.just(UTC)),  # noqa: DTZ001
    away=offsets,
    active=st.sampled_from([0, 1, 2, 999, 1000]),
    bounds=st.tuples(st.none() | offsets, st.none() | offsets),
)
def test_every_planned_fire_gets_exactly_one_disposition(
    spec: TaskSpec,
    cursor: datetime,
    away: timedelta,
    active: int,
    bounds: tuple[timedelta | None, timedelta | None],
) -> None:
    starts_at, ends_at = (None if offset is None else cursor + offset for offset in bounds)
    spec = structs.replace(spec, starts_at=starts_at, ends_at=ends_at)
    assert spec.schedule is not None
    schedule = parse_schedule(spec.schedule, spec.timezone, hash_id="job")
    now = cursor + away
    firing = decide(TASK, spec, schedule, cursor=cursor, now=now, active=active)
    begin = max(cursor, starts_at - timedelta(microseconds=1)) if starts_at else cursor
    end = min(now, ends_at) if ends_at else now
    planned = [f for f in schedule.between(begin - timedelta(seconds=1), end, 10**6) if f > begin]

    found = []
    for record in firing.fires:
        if record.until is None:
            assert record.count == 1
            found.append(record.scheduled_for)
        else:
            stretch = [f for f in planned if record.scheduled_for <= f <= record.until]
            assert (stretch[0], stretch[-1], len(stretch)) == (record.scheduled_for, record.until, record.count)
            found += stretch
    assert found == planned

    assert firing.cursor == (planned[-1] if planned else cursor)
    assert firing.cursor >= cursor
    following = next_fire_at(schedule, spec, firing.cursor)
    assert firing.next_fire_at == following
    assert following is None or following > now or (ends_at is not None and following > ends_at)
    runs = {f.scheduled_for for f in firing.fires if f.run_at is not None}
    for record in firing.fires:
        assert (record.run_at is not None) == (record.disposition in ("fired", "late"))
        assert (record.absorbed_by in runs) == (record.disposition == "coalesced")
        assert record.run_at is None or record.run_at >= record.scheduled_for
    again = decide(TASK, spec, schedule, cursor=firing.cursor, now=now, active=active)
    assert (again.fires, again.cursor, again.next_fire_at) == ([], firing.cursor, firing.next_fire_at)
