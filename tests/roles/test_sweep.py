"""Where looks for due runs begin, as a pure decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from scheduler.control.sweep import BEGINNING, Sweep
from scheduler.domain.run import Queued

PLACE = ("default", 5)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
EDGE = AT - timedelta(seconds=10), UUID(int=0)


def run(number: int, run_at: datetime) -> Queued:
    return Queued(run_id=UUID(int=number), lane="default", priority=5, run_at=run_at, seq=1, traceparent=None)


def looked(sweep: Sweep, now: float, seconds: float, places: int = 10, moved: tuple[Queued, ...] = ()) -> None:
    sweep.begin(now)
    sweep.end(now + seconds, seconds, AT, {PLACE: places}, moved)


def test_cheap_looks_go_over_everything() -> None:
    sweep = Sweep()
    looked(sweep, 100.0, 0.004)
    assert sweep.after(PLACE) == BEGINNING
    looked(sweep, 100.0, 0.02, 100, tuple(run(n, AT) for n in range(100)))  # dear only for what it moved
    assert sweep.after(PLACE) == BEGINNING


def test_after_a_dear_look_the_next_ones_pass_over_what_it_saw() -> None:
    sweep = Sweep()
    looked(sweep, 100.0, 0.3)
    assert sweep.after(PLACE) == EDGE
    assert sweep.after(("other", 5)) == BEGINNING


def test_what_a_full_look_left_is_found_by_the_next() -> None:
    sweep = Sweep()
    old = AT - timedelta(hours=1)
    looked(sweep, 100.0, 0.3, 2, (run(1, old), run(2, old)))
    assert sweep.after(PLACE) == (old, UUID(int=2))
    looked(sweep, 100.5, 0.001, 2, (run(3, old), run(4, old)))
    assert sweep.after(PLACE) == (old, UUID(int=4))
    looked(sweep, 100.6, 0.001, 2, (run(5, old),))
    assert sweep.after(PLACE) == EDGE


def test_a_look_from_the_beginning_comes_again_once_it_took_a_twentieth_of_the_time() -> None:
    sweep = Sweep()
    looked(sweep, 100.0, 0.3)
    sweep.begin(106.2)
    assert sweep.after(PLACE) == EDGE
    sweep.begin(106.4)
    assert sweep.after(PLACE) == BEGINNING


def test_a_look_never_goes_back_behind_what_was_seen() -> None:
    sweep = Sweep()
    looked(sweep, 100.0, 0.3)
    looked(sweep, 100.5, 0.001, 1, (run(1, AT - timedelta(days=1)),))
    assert sweep.after(PLACE) == EDGE


def test_a_place_without_room_stays_where_it_was() -> None:
    sweep = Sweep()
    looked(sweep, 100.0, 0.3, 0)
    assert sweep.after(PLACE) == BEGINNING
