from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler.domain.backfill import Backfill, Decided, plan_backfill, planned_between
from scheduler.domain.cron import parse_schedule
from scheduler.domain.task import TaskSpec

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
HOURLY = parse_schedule("0 * * * *", "UTC", hash_id="t", dst_gap="skip", anchor=NOON)
RUN = UUID(int=7)


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def plan(start: float, end: float, decided: list[Decided] | None = None, **fields: Any) -> Backfill:
    options: dict[str, Any] = {"cap": 100, "overlap": None, "active": 0} | {
        key: fields.pop(key) for key in ("cap", "overlap", "active", "blackout") if key in fields
    }
    spec = TaskSpec(name="t", command="true", schedule="0 * * * *", **fields)
    planned = planned_between(HOURLY, spec, at(start), at(end), options["cap"] + 1)
    return plan_backfill(HOURLY, spec, planned, decided or [], **options)


def results(planned: Backfill) -> list[tuple[datetime, str]]:
    return [(fire.scheduled_for, fire.result) for fire in planned.fires]


def test_both_ends_of_the_range_count_and_moments_between_seconds_do_not_round_outwards() -> None:
    assert results(plan(0, 2)) == [(at(n), "run") for n in range(3)]
    spec = TaskSpec(name="t", command="true", schedule="0 * * * *")
    late = at(0) + timedelta(microseconds=1)
    assert planned_between(HOURLY, spec, late, at(1), 9) == [at(1)]


def test_fires_outside_of_the_bounds_of_the_schedule_were_never_planned() -> None:
    assert results(plan(0, 9, starts_at=at(2), ends_at=at(3))) == [(at(2), "run"), (at(3), "run")]


def test_a_fire_with_a_run_of_its_own_keeps_it_and_every_other_gets_one() -> None:
    decided = [
        Decided(scheduled_for=at(0), disposition="fired", run_id=RUN),
        Decided(scheduled_for=at(1), disposition="coalesced", run_id=RUN),
        Decided(scheduled_for=at(2), disposition="skipped:overlap"),
        Decided(scheduled_for=at(3), disposition="late", run_id=RUN),
    ]
    assert [r for _, r in results(plan(0, 4, decided))] == ["exists", "run", "run", "exists", "run"]


def test_the_runs_go_one_by_one_unless_the_task_or_the_caller_says_otherwise() -> None:
    assert [fire.waits for fire in plan(0, 2).fires] == [False, True, True]
    assert [fire.waits for fire in plan(0, 2, active=1).fires] == [True, True, True]
    assert [fire.waits for fire in plan(0, 2, overlap="allow_all").fires] == [False, False, False]
    skipping = plan(0, 2, overlap="skip")
    assert [(f.result, f.reason) for f in skipping.fires] == [
        ("run", None),
        ("skipped", "overlap"),
        ("skipped", "overlap"),
    ]


def test_the_cap_says_where_to_go_on() -> None:
    planned = plan(0, 9, cap=3)
    assert len(planned.fires) == 3
    assert planned.next_from == at(3)
    assert plan(0, 2, cap=3).next_from is None


@pytest.mark.parametrize(
    ("start", "end", "left"),
    [
        (-1, 20, []),
        (0, 3, [(4, 9, 6)]),
        (4, 20, [(0, 3, 4)]),
        (4, 5, [(0, 3, 4), (6, 9, 4)]),
        (8, 8, [(0, 7, 8), (9, 9, 1)]),
        (11, 12, []),
    ],
)
def test_what_is_left_of_a_missed_stretch_keeps_its_disposition(
    start: int, end: int, left: list[tuple[int, int, int]]
) -> None:
    stretch = Decided(scheduled_for=at(0), disposition="missed", until=at(9), count=10)
    remains = plan(start, end, [stretch]).remains
    assert [(r.scheduled_for, r.until, r.count) for r in remains] == [(at(a), at(b), n) for a, b, n in left]
    assert {r.disposition for r in remains} <= {"missed"}


def test_the_ends_of_a_stretch_stand_although_the_schedule_has_changed_since() -> None:
    stretch = Decided(
        scheduled_for=at(0) - timedelta(minutes=30), disposition="missed", until=at(9) + timedelta(minutes=30), count=10
    )
    remains = plan(0, 9, [stretch]).remains
    assert [(r.scheduled_for, r.until) for r in remains] == [
        (stretch.scheduled_for, stretch.scheduled_for),
        (stretch.until, stretch.until),
    ]


def test_a_fire_that_a_calendar_blacks_out_gets_no_run() -> None:
    planned = plan(0, 2, blackout=lambda instant: instant == int(at(1).timestamp()))
    assert [(f.result, f.reason) for f in planned.fires] == [("run", None), ("skipped", "calendar"), ("run", None)]
