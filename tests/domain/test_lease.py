"""When a worker must be done with what it may no longer have."""

from __future__ import annotations

import pytest

from scheduler.domain.lease import LeaseClock, LeaseTerms


@pytest.mark.parametrize(
    ("now", "phase", "change"),
    [(100.0, "held", 9.0), (108.9, "held", 0.1), (109.0, "ending", 2.0), (111.0, "killing", 1.0), (112.0, "over", 0.0)],
)
def test_the_deadline_counts_from_before_the_renewal_was_sent(now: float, phase: str, change: float) -> None:
    lease = LeaseClock(LeaseTerms(15.0))
    lease.renewed(100.0)
    assert lease.deadline == 112.0
    assert lease.phase(now) == phase
    assert lease.next_change(now) == pytest.approx(change)


def test_an_answer_that_comes_late_never_shortens_the_lease() -> None:
    lease = LeaseClock(LeaseTerms(15.0))
    assert lease.phase(1e9) == "none"
    lease.renewed(103.0)
    lease.renewed(100.0)
    assert lease.deadline == 115.0


@pytest.mark.parametrize("ttl", [5.0, 15.0, 300.0])
def test_everything_is_over_well_before_anybody_may_take_the_runs(ttl: float) -> None:
    terms = LeaseTerms(ttl)
    assert terms.lasts < ttl
    assert 2 * terms.renew_every + terms.grace <= terms.lasts  # one renewal may fail before commands are asked to end
    assert terms.last_moment < terms.grace
