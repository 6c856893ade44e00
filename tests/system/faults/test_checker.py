"""The checker finds each planted violation, and nothing in a history without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.support.chronos.checker import check
from tests.support.chronos.history import Attempt, Execution, Fire, History, Planned, Run
from tests.support.chronos.plan import schedules, strikes

PLANNED = Planned("job", start=1000, every=10, count=2, duration=1.0, epsilon=5.0)


def clean() -> History:
    """Two fires; the second one's first attempt was lost half-way. One submitted run."""
    return History(
        planned=[PLANNED],
        acknowledged=["r3"],
        fires=[Fire("job", 1000, "fired", "r1"), Fire("job", 1010, "late", "r2")],
        runs=[
            Run("r1", "job", 1000, "completed"),
            Run("r2", "job", 1010, "completed", losses=1),
            Run("r3", "once", None, "completed"),
        ],
        attempts=[
            Attempt("r1", 1, 1, "completed"),
            Attempt("r2", 1, 2, "lost", "lost"),
            Attempt("r2", 2, 4, "completed"),
            Attempt("r3", 1, 3, "completed"),
        ],
        executions=[
            Execution("r1", 1, 1, 1000.1, 1001.1),
            Execution("r2", 1, 2, 1010.2, None),
            Execution("r2", 2, 4, 1017.0, 1018.0),
            Execution("r3", 1, 3, 1012.0, 1012.1),
        ],
    )


def kinds(history: History) -> set[str]:
    return {violation.kind for violation in check(history, forgiveness=5.0).violations}


def test_a_clean_history_has_no_violation_and_its_figures_are_right() -> None:
    report = check(clean(), forgiveness=5.0)
    assert report.violations == []
    assert (report.planned, report.accepted, report.executions, report.extra) == (2, 3, 4, 1)
    assert report.overlap_seconds == 0
    assert report.lag(0.5) == pytest.approx(0.2)


def without(name: str, index: int) -> Callable[[History], dict[str, Any]]:
    return lambda history: {name: [x for i, x in enumerate(getattr(history, name)) if i != index]}


def with_(name: str, item: Any) -> Callable[[History], dict[str, Any]]:
    return lambda history: {name: [*getattr(history, name), item]}


def changed(name: str, index: int, **values: Any) -> Callable[[History], dict[str, Any]]:
    def change(history: History) -> dict[str, Any]:
        items = list(getattr(history, name))
        items[index] = msgspec.structs.replace(items[index], **values)
        return {name: items}

    return change


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (without("fires", 0), "no disposition"),
        (with_("fires", Fire("job", 1010, "fired", "r1")), "two dispositions"),
        (changed("fires", 0, disposition="missed", run=None), "not fired"),
        (changed("fires", 0, disposition="skipped:overlap"), "not fired"),
        (changed("fires", 0, run="gone"), "no run"),
        (with_("runs", Run("r9", "job", 1010, "completed")), "two runs"),
        (with_("fires", Fire("job", 1005, "fired", "r1")), "unplanned"),
        (with_("runs", Run("r9", "job", 1005, "completed")), "unplanned"),
        (without("runs", 2), "lost"),
        (changed("runs", 0, state="queued"), "live"),
        (changed("runs", 0, state="failed", reason="signal:TERM"), "no outcome"),
        (changed("runs", 0, state="dead_letter", losses=2), "no outcome"),
        (changed("runs", 0, state="dead_letter", losses=3), "two outcomes"),
        (without("attempts", 0), "no outcome"),
        (with_("attempts", Attempt("r1", 2, 9, "completed")), "two outcomes"),
        (changed("executions", 0, end=None), "unfinished"),
        (without("executions", 0), "unfinished"),
        (changed("attempts", 1, fence=9), "fences"),
        (with_("executions", Execution("r1", 2, 8, 1003.0, 1004.0)), "unexplained"),
        (with_("executions", Execution("r1", 1, 1, 1003.0, 1004.0)), "twice"),
        (without("attempts", 1), "unexplained"),
        (changed("executions", 2, shared=0.5), "overlap"),
        (changed("executions", 1, end=1017.5), "overlap"),
        (changed("executions", 0, begin=1010.5, end=1011.5), "late"),
        (changed("executions", 0, begin=999.0), "early"),
    ],
)
def test_a_planted_violation_is_found(plant: Callable[[History], dict[str, Any]], found: str) -> None:
    assert found in kinds(msgspec.structs.replace(clean(), **plant(clean())))


def test_a_dead_letter_after_its_losses_is_an_outcome() -> None:
    history = msgspec.structs.replace(
        clean(),
        **changed("runs", 1, state="dead_letter", reason="lost", losses=3)(clean()),
        **changed("attempts", 2, outcome="lost")(clean()),
    )
    assert kinds(history) == set()


def test_an_excepted_overlap_is_counted_apart() -> None:
    history = clean()
    history = msgspec.structs.replace(history, **changed("executions", 2, shared=0.5, excepted=True)(history))
    report = check(history, forgiveness=5.0)
    assert (report.violations, report.excepted, report.overlap_seconds) == ([], 1, 0)


def test_a_seed_gives_the_same_plan_again() -> None:
    members = ["api-1", "scheduler-2", "scheduler-3", "worker-4", "worker-5"]
    one, two = (strikes(7, seconds=300, members=members, lease=5.0) for _ in range(2))
    assert one == two
    assert one != strikes(8, seconds=300, members=members, lease=5.0)
    assert schedules(7, count=5, begin=1000, seconds=60) == schedules(7, count=5, begin=1000, seconds=60)
    assert {strike.kind for strike in one} >= {"kill", "cut", "trap", "redis", "postgres"}
    assert all(0 <= strike.at < strike.until <= 300 for strike in one)


def test_schedules_stay_within_their_time() -> None:
    for planned in schedules(3, count=50, begin=1003, seconds=30):
        assert planned.start > 1003
        assert planned.fires()[-1] <= 1003 + 60
        assert planned.duration < planned.every
