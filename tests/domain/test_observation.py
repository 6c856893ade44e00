from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.observation import Expired, LeaseObserver, SeenLease

LEASE = 15.0
A, B = uuid4(), uuid4()


def look(observer: LeaseObserver, at: float, renewals: Mapping[UUID, int]) -> list[Expired]:
    """One read that takes no time."""
    leases = {worker: SeenLease(renewal, LEASE) for worker, renewal in renewals.items()}
    return observer.observe(leases, sent=at, received=at)


def expires_at(observer: LeaseObserver, moments: Iterable[float], renewals: Mapping[UUID, int]) -> float | None:
    """When the first worker expires, if these numbers never change."""
    return next((at for at in moments if look(observer, at, renewals)), None)


def test_an_unchanged_number_expires_after_a_lease_of_close_reads() -> None:
    assert expires_at(LeaseObserver(), range(100), {A: 4}) == 15


def test_who_expires_is_named_with_the_number_that_was_seen() -> None:
    observer = LeaseObserver()
    for at in range(15):
        assert look(observer, at, {A: 4, B: at}) == []
    assert look(observer, 15, {A: 4, B: 15}) == [Expired(A, 4)]


def test_a_worker_that_renews_never_expires() -> None:
    observer = LeaseObserver()
    assert all(look(observer, at, {A: at // 14}) == [] for at in range(1000))


def test_a_worker_seen_for_the_first_time_has_a_whole_lease() -> None:
    observer = LeaseObserver()
    for at in range(60):
        look(observer, at, {})
    assert expires_at(observer, range(60, 200), {A: 1}) == 75


def test_time_between_distant_reads_does_not_count() -> None:
    observer = LeaseObserver()
    assert expires_at(observer, range(0, 3000, 3), {A: 4}) is None


def test_the_time_that_a_read_takes_does_not_count() -> None:
    observer = LeaseObserver()
    for at in range(20):
        assert observer.observe({A: SeenLease(4, LEASE)}, sent=at, received=at + 0.5) == []


def test_after_an_outage_everybody_has_time_to_be_heard_again() -> None:
    observer = LeaseObserver()
    for at in range(15):
        look(observer, at, {A: 4, B: 9})  # one second more and both were dead
    assert look(observer, 50, {A: 4, B: 9}) == []
    assert look(observer, 52, {A: 5, B: 9}) == []
    assert look(observer, 54, {A: 5, B: 9}) == []
    assert look(observer, 55, {A: 5, B: 9}) == [Expired(B, 9)]


def test_a_dead_worker_is_found_although_the_database_comes_and_goes() -> None:
    observer = LeaseObserver()
    moments = [start + second for start in range(0, 100, 10) for second in range(7)]  # 6 s there, 4 s away
    found = expires_at(observer, moments, {A: 4})
    assert found is not None
    assert found < 40


def test_a_clock_that_jumped_back_proves_nothing() -> None:
    observer = LeaseObserver()
    look(observer, 100, {A: 4})
    assert look(observer, 50, {A: 4}) == []


@given(st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(0, 2)), max_size=60))
def test_nobody_expires_sooner_than_a_lease_after_the_last_change(reads: list[tuple[float, int]]) -> None:
    observer = LeaseObserver()
    at = changed = 0.0
    last: int | None = None
    for gap, renewal in reads:
        at += gap
        if renewal != last:
            changed, last = at, renewal
        if look(observer, at, {A: renewal}):
            assert at - changed >= LEASE - 1e-6


def test_each_worker_is_given_the_time_that_its_own_lease_lasts() -> None:
    observer = LeaseObserver()
    leases = {A: SeenLease(1, 5.0), B: SeenLease(1, 60.0)}
    expired = {at: [e.worker_id for e in observer.observe(leases, sent=at, received=at)] for at in range(70)}
    assert expired[4] == []
    assert expired[59] == [A]
    assert expired[60] == [A, B]
