"""When a loop looks again at what falls due."""

from __future__ import annotations

import pytest

from scheduler.control.pace import Pace


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
