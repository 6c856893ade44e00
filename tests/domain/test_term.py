from __future__ import annotations

from uuid import uuid4

import pytest

from scheduler.domain.term import MARGIN, TermLease, TermReading, TermWatch

TTL = 5.0
ME = uuid4()
HELD = TermReading(epoch=3, holder=uuid4(), renewal=7)


def watch_at(*moments: float) -> float:
    """Look at an unchanged row at these moments (each look takes 0.1 s); return what the last look says is left."""
    watch = TermWatch(TTL, ME)
    return [watch.observe(HELD, sent=moment, received=moment + 0.1) for moment in moments][-1]


def test_a_released_term_may_be_taken_at_first_sight() -> None:
    assert TermWatch(TTL, ME).observe(TermReading(3, None, 7), sent=0, received=0) <= 0


def test_a_term_that_the_row_calls_ours_may_be_taken_at_first_sight() -> None:
    """We took it without hearing so, or stopped in time although nobody else took it."""
    assert TermWatch(TTL, ME).observe(TermReading(3, ME, 7), sent=0, received=0) <= 0


def test_a_held_term_is_left_alone_at_first_sight_however_old_it_is() -> None:
    assert watch_at(1000.0) == TTL


@pytest.mark.parametrize("moments", [(0.0, 5.1), (0.0, 1.0, 2.0, 5.2), (0.0, 300.0)])
def test_a_term_that_stood_still_for_its_ttl_may_be_taken(moments: tuple[float, ...]) -> None:
    assert watch_at(*moments) <= 0


def test_time_counts_from_the_arrival_of_the_first_look_to_the_sending_of_the_last() -> None:
    assert watch_at(0.0, 5.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "other",
    [
        TermReading(HELD.epoch, HELD.holder, HELD.renewal + 1),
        TermReading(HELD.epoch + 1, HELD.holder, HELD.renewal),
        TermReading(HELD.epoch, uuid4(), HELD.renewal),
    ],
)
def test_any_change_begins_the_wait_anew(other: TermReading) -> None:
    watch = TermWatch(TTL, ME)
    watch.observe(HELD, sent=0.0, received=0.0)
    assert watch.observe(other, sent=4.9, received=4.9) == TTL
    assert watch.observe(other, sent=9.8, received=9.8) > 0


def test_a_term_that_was_released_and_taken_is_watched_anew() -> None:
    watch = TermWatch(TTL, ME)
    watch.observe(HELD, sent=0.0, received=0.0)
    watch.observe(TermReading(3, None, 8), sent=1.0, received=1.0)
    assert watch.observe(HELD, sent=9.0, received=9.0) == TTL


def test_a_leader_stops_before_anybody_may_follow_however_slow_the_answer_was() -> None:
    lease = TermLease(TTL, sent=10.0)  # confirmed at whatever time: what counts is when it was sent
    assert lease.remaining(10.0 + TTL * (1 - MARGIN)) == pytest.approx(0)
    watch = TermWatch(TTL, ME)
    watch.observe(HELD, sent=10.0, received=10.0)  # the earliest moment at which a standby can see this renewal
    assert watch.observe(HELD, sent=10.0 + TTL * (1 - MARGIN), received=20.0) > 0


def test_a_confirmation_that_was_overtaken_does_not_shorten_the_lease() -> None:
    lease = TermLease(TTL, sent=10.0)
    lease.confirmed(sent=12.0)
    lease.confirmed(sent=11.0)
    assert lease.remaining(12.0) == TTL * (1 - MARGIN)
