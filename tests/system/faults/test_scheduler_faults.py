"""Faults of schedulers: another one leads soon, and whoever led before writes nothing any more."""

from __future__ import annotations

import time

import pytest

from scheduler.failpoints import Point
from tests.support.cluster import Cluster
from tests.support.cluster.faults import ClockJump, Cut, Freeze, Kill, Postgres, Redis, Trap, in_force
from tests.support.waiting import until_sync
from tests.system.faults.conftest import Timings
from tests.system.faults.support import Figure, lag, spread


def epoch(system: Cluster) -> int:
    return system.sql("SELECT epoch FROM leadership")[0][0]


def test_a_killed_leader_is_succeeded_within_its_term_and_a_second(
    system: Cluster, timings: Timings, figure: Figure
) -> None:
    runs = system.submit_many(spread(60, 0.3, timings.lock_ttl + 1.5))
    Kill(system.leader()).inject()
    figure("the latest dispatch came late by", lag(system, runs), timings.lock_ttl + 1)


def test_a_leader_that_stops_on_purpose_hands_over_within_300_ms(system: Cluster, figure: Figure) -> None:
    system.until_schedulers_listen()
    runs = system.submit_many(spread(100, 0.3, 1.5))
    leader = system.leader()
    leader.stop()
    figure("the latest dispatch came late by", lag(system, runs), 0.3)


@pytest.mark.chaos
def test_a_killed_standby_is_not_missed(system: Cluster, figure: Figure) -> None:
    leader, before = system.leader(), epoch(system)
    runs = system.submit_many(spread(50, 0.3, 1.0))
    Kill(next(member for member in system.of("scheduler") if member is not leader)).inject()
    figure("the latest dispatch came late by", lag(system, runs), 0.3)
    assert epoch(system) == before


@pytest.mark.chaos
def test_a_frozen_leader_is_succeeded_and_steps_down_when_it_wakes(
    system: Cluster, timings: Timings, figure: Figure
) -> None:
    first = system.leader()
    runs = system.submit_many(spread(60, 0.3, timings.lock_ttl + 1.5))
    with in_force(Freeze(first)):
        figure("the latest dispatch came late by", lag(system, runs), timings.lock_ttl + 1)
        second, after = system.leader(), epoch(system)
    runs = system.submit_many(spread(30, 0.1, 1.0))
    assert lag(system, runs) < 0.5
    assert (system.leader(), epoch(system)) == (second, after)
    assert second is not first


def test_a_leader_that_is_stopped_in_a_transaction_cannot_hold_up_its_successor(
    system: Cluster, timings: Timings, figure: Figure
) -> None:
    first = system.leader()
    upstream = system.submit(name=f"upstream-{first.name}", schedule="* * * * * *")["id"]
    with in_force(trap := Trap(first, Point.TERM_HELD, "stop")):
        system.submit(
            name=f"downstream-{first.name}",
            schedule="* * * * * *",
            depends_on=[{"task": upstream, "on": "completion"}],
        )
        until_sync(lambda: trap.sprung, 10)
        runs = system.submit_many(spread(60, 0.1, timings.lock_ttl + 1.5))
        figure("the latest dispatch came late by", lag(system, runs), timings.lock_ttl + 1)
        assert system.leader() is not first
    for name in ("downstream", "upstream"):
        answer = system.request("GET", f"/api/tasks?name={name}-{first.name}").json()["items"][0]
        assert system.request("DELETE", f"/api/tasks/{answer['id']}?cascade=cancel").status_code < 300


@pytest.mark.chaos
@pytest.mark.parametrize("direction", ["both", "to server", "from server"])
def test_a_leader_that_cannot_reach_postgresql_is_succeeded(
    system: Cluster, timings: Timings, figure: Figure, direction: str
) -> None:
    first = system.leader()
    runs = system.submit_many(spread(60, 0.3, timings.lock_ttl + 1.5))
    with in_force(Cut(first, "postgres", direction)):
        figure("the latest dispatch came late by", lag(system, runs), timings.lock_ttl + 1)
        assert system.leader() is not first
    assert lag(system, system.submit_many(spread(30, 0.1, 1.0))) < 0.5


@pytest.mark.chaos
def test_a_leader_that_cannot_reach_redis_leads_on(system: Cluster, timings: Timings, figure: Figure) -> None:
    before = epoch(system)
    with in_force(Cut(system.leader(), "redis")):
        runs = system.submit_many(spread(60, 0.3, timings.lock_ttl + 1.5))
        # Its offers reach nobody: workers find the runs in PostgreSQL, each looking every so many seconds as there are.
        figure("the latest dispatch came late by", lag(system, runs), 5)
    assert epoch(system) == before


@pytest.mark.chaos
@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_wrong_clock_moves_no_fire(system: Cluster, seconds: float) -> None:
    task = system.submit(name=f"every-second{seconds}", schedule="* * * * * *", catchup="all", overlap="allow_all")[
        "id"
    ]

    def fires() -> list[object]:
        return system.sql("SELECT * FROM fires WHERE task_id = $1::text::uuid ORDER BY scheduled_for", task)

    until_sync(fires, 5)
    with in_force(*(ClockJump(member, seconds) for member in system.members)):
        seen = len(fires())
        until_sync(lambda: len(fires()) >= seen + 3, 10)
        later = system.submit_many(spread(10, 0.1, 1.0))
        assert lag(system, later) < 1.0
    assert system.request("DELETE", f"/api/tasks/{task}?cascade=cancel").status_code < 300
    planned = [row["scheduled_for"].timestamp() for row in fires()]  # type: ignore[index]
    assert planned == [planned[0] + number for number in range(len(planned))]
    assert {row["disposition"] for row in fires()} == {"fired"}  # type: ignore[index]
    assert all(abs((row["decided_at"] - row["scheduled_for"]).total_seconds()) < 2 for row in fires())  # type: ignore[index]


@pytest.mark.chaos
def test_leadership_survives_both_servers_going_away_for_a_moment(system: Cluster, timings: Timings) -> None:
    runs = system.submit_many(spread(60, 0.3, 2.0))
    with in_force(Redis(system, "restart"), Postgres(system, "restart")):
        began = time.monotonic()
        system.until_completed(runs, timings.lock_ttl + 10)
    assert time.monotonic() - began < timings.lock_ttl + 5
