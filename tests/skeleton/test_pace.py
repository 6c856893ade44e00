"""When a loop looks again at what falls due."""

from __future__ import annotations

import pytest

from scheduler.pace import Pace, rest_after


def test_it_looks_when_the_next_one_is_due_and_now_and_then_anyway() -> None:
    pace = Pace(1.0)
    assert [pace.until(due) for due in (None, 0.25, 5.0)] == [1.0, 0.25, 1.0]


def test_what_fell_due_in_between_is_looked_at_at_once_and_what_is_held_less_and_less_often() -> None:
    pace = Pace(1.0)
    delays = [pace.until(-0.001) for _ in range(50)]
    assert delays[0] < 0.01
    assert delays == sorted(delays)
    assert delays[-1] == 1.0
    assert sum(delays) > 30
    assert pace.until(0.5) == 0.5
    assert pace.until(0.0) == pytest.approx(delays[0])
    rare = Pace(1.0, soon=0.3)
    assert [rare.until(0.0) for _ in range(3)] == pytest.approx([0.3, 0.6, 1.0])


def test_what_took_long_rests_for_long_but_not_for_as_long_as_a_database_may_have_stood_still() -> None:
    assert rest_after(0.001, 1.0) == 1.0
    assert rest_after(0.5, 1.0) == 10.0
    assert rest_after(3600.0, 1.0) == 30.0
