"""Ids carry PostgreSQL's time, as far as its answers prove what that is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from scheduler.domain.clock import SystemClock
from scheduler.domain.ids import IdSource, first_id_at

DAY = timedelta(days=1)


class Stopped(SystemClock):
    """A clock that shows one moment."""

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC)


def carried(made: UUID) -> datetime:
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC)


def test_the_smallest_id_of_a_moment_is_not_above_one_made_then() -> None:
    now = Stopped().now()
    assert first_id_at(now) < IdSource(Stopped()).one() < first_id_at(now + timedelta(milliseconds=1))


@pytest.mark.parametrize("ahead", [DAY, -DAY])
def test_ids_carry_the_databases_time_however_wrong_our_clock_is(ahead: timedelta) -> None:
    clock = Stopped()
    ids = IdSource(clock)
    ids.follow(clock.now() + ahead, asked=clock.now())
    assert carried(ids.one()) == clock.now() + ahead
    ids.follow(clock.now(), asked=clock.now())  # somebody has put it right
    assert carried(ids.one()) >= clock.now()


def test_a_slow_answer_changes_no_more_than_it_proves() -> None:
    clock = Stopped()
    ids = IdSource(clock)
    asked = clock.now() - timedelta(seconds=10)
    for database_now in (asked, asked + timedelta(seconds=4), clock.now()):
        ids.follow(database_now, asked=asked)
        assert carried(ids.one()) == clock.now()


def test_ids_increase_when_the_databases_clock_goes_back() -> None:
    clock = Stopped()
    ids = IdSource(clock)
    before = ids.one()
    ids.follow(clock.now() - DAY, asked=clock.now())
    assert ids.one() > before
