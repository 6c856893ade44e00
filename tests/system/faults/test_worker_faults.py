"""Faults of workers: what they executed goes on elsewhere, and nothing of it is left where it was."""

from __future__ import annotations

import time

import pytest

from scheduler.failpoints import Point
from tests.support.cluster import Cluster, Member
from tests.support.cluster.faults import Cut, Fault, Freeze, Kill, Part, Stop, Trap, in_force
from tests.support.cluster.member import running
from tests.support.waiting import until_sync
from tests.system.faults.conftest import Timings
from tests.system.faults.support import Figure, Stamps, lag, slow, submit_evenly, until_quick


def begin_on(system: Cluster, stamps: Stamps, seconds: float, **fields: object) -> tuple[str, Member]:
    """Start one run; return it and the worker that executes it."""
    (run,) = system.submit_many(1, command=stamps.command(seconds), **fields)
    stamps.until_begun([run])
    return run, system.host_of(run)


@pytest.mark.parametrize("part", ["worker", slow("spawners"), slow("guard and worker")])
def test_runs_of_a_killed_worker_start_elsewhere_and_nothing_is_left_of_them(
    system: Cluster, stamps: Stamps, timings: Timings, figure: Figure, part: Part
) -> None:
    run, worker = begin_on(system, stamps, timings.lease + 3)
    commands = worker.commands()
    killed_at = time.time()
    Kill(worker, part).inject()
    until_sync(lambda: not any(running(process) for process in commands), 2)
    figure("its commands were gone after", time.time() - killed_at, 1.0)
    figure("started elsewhere after", stamps.elsewhere(run, timings.lease + 3).begin - killed_at, timings.lease + 2)
    system.until_completed([run], timings.lease + 20)
    assert system.run(run)["losses"] == 1


@pytest.mark.chaos
def test_runs_of_a_worker_whose_guard_is_killed_start_elsewhere_and_nothing_is_left_of_them(
    system: Cluster, stamps: Stamps, timings: Timings, figure: Figure
) -> None:
    run, worker = begin_on(system, stamps, timings.lease + 3)
    commands = worker.commands()
    killed_at = time.time()
    Kill(worker).inject()
    until_sync(lambda: not any(running(process) for process in commands), 2)
    figure("its commands were gone after", time.time() - killed_at, 1.0)
    figure("started elsewhere after", stamps.elsewhere(run, timings.lease + 4).begin - killed_at, timings.lease + 2)
    system.until_completed([run], timings.lease + 20)


@pytest.mark.chaos
def test_runs_of_a_machine_that_dies_start_elsewhere(
    system: Cluster, stamps: Stamps, timings: Timings, figure: Figure
) -> None:
    run, worker = begin_on(system, stamps, timings.lease + 3)
    killed_at = time.time()
    Kill(worker, "everything").inject()
    figure("started elsewhere after", stamps.elsewhere(run, timings.lease + 4).begin - killed_at, timings.lease + 2)
    system.until_completed([run], timings.lease + 20)


@pytest.mark.chaos
@pytest.mark.parametrize("part", ["worker", "worker and commands"])
def test_a_worker_that_is_stopped_loses_its_commands_before_they_start_elsewhere(
    system: Cluster, stamps: Stamps, timings: Timings, figure: Figure, part: str
) -> None:
    run, worker = begin_on(system, stamps, 2 * timings.lease)
    commands = worker.commands()
    frozen_at = time.time()
    with in_force(Freeze(worker, part)):
        until_sync(lambda: not any(running(process) for process in commands), timings.lease)
        figure("its commands were gone after", time.time() - frozen_at, timings.lease)
        figure("started elsewhere after", stamps.elsewhere(run, timings.lease + 4).begin - frozen_at, timings.lease + 2)
    system.until_completed([run], 3 * timings.lease + 10)


@pytest.mark.chaos
@pytest.mark.parametrize("share", [0.45, 0.7])
def test_a_worker_that_is_stopped_for_less_than_its_lease_fails_no_command(
    system: Cluster, stamps: Stamps, timings: Timings, share: float
) -> None:
    """From three fifths of the lease on the guard asks commands to end; that is no failure of theirs."""
    run, worker = begin_on(system, stamps, 1.2 * timings.lease)

    def renewal() -> int:
        query = "SELECT renewal FROM worker_leases JOIN workers ON id = worker_id WHERE name = $1 AND state = 'live'"
        return system.sql(query, worker.name)[0][0]

    before = renewal()
    until_sync(lambda: renewal() > before, timings.lease)
    with in_force(Freeze(worker, "worker")):
        time.sleep(share * timings.lease)
    (row,) = system.until_completed([run], 3 * timings.lease + 10)
    assert (row["failures"], row["losses"]) == (0, 0)


@pytest.mark.chaos
def test_while_the_spawners_of_a_worker_are_stopped_nothing_is_lost_and_nothing_repeated(
    system: Cluster, stamps: Stamps, timings: Timings
) -> None:
    run, worker = begin_on(system, stamps, 0.5)
    with in_force(Freeze(worker, "spawners")):
        frozen_at = time.monotonic()
        runs = [run, *system.submit_many(10, command=stamps.command(0.1))]
        until_sync(lambda: len(worker.spawners()) > 1, 10, "another spawner")
        system.until_completed(system.submit_many(10))  # at least by the other worker
        time.sleep(max(0.0, frozen_at + 1.2 * timings.lease - time.monotonic()))
    rows = system.until_completed(runs)
    assert {(row["attempt"], row["failures"], row["losses"]) for row in rows} == {(1, 0, 0)}


@pytest.mark.parametrize("direction", ["both", slow("to server"), slow("from server")])
def test_a_worker_that_cannot_reach_postgresql_ends_its_commands_in_time_and_returns_by_itself(
    system: Cluster, stamps: Stamps, timings: Timings, figure: Figure, direction: str
) -> None:
    run, worker = begin_on(system, stamps, 1.5 * timings.lease)
    commands = worker.commands()
    cut_at = time.time()
    with in_force(Cut(worker, "postgres", direction)):
        until_sync(lambda: not any(running(process) for process in commands), timings.lease + 1)
        figure("its commands were gone after", time.time() - cut_at, timings.lease)
        # Of a way that loses only answers, one more renewal arrives.
        limit = timings.lease + 2 + (timings.lease / 5 if direction == "from server" else 0)
        figure("started elsewhere after", stamps.elsewhere(run, limit + 3).begin - cut_at, limit)
    mended_at = time.time()
    system.until_ready()
    figure("it worked again after", time.time() - mended_at, 5.0)
    (row,) = system.until_completed([run], 3 * timings.lease + 10)
    assert row["failures"] == 0


@pytest.mark.chaos
def test_workers_that_cannot_reach_redis_take_their_work_from_postgresql(system: Cluster, figure: Figure) -> None:
    with in_force(*(Cut(worker, "redis") for worker in system.of("worker"))):
        runs = submit_evenly(system, 60, 4.0)
        figure("submit to start, the slowest of 60", lag(system, runs), 1.5)
    figure("normal again after", until_quick(system), 5.0)


def test_a_worker_that_is_asked_to_end_lets_its_commands_finish(system: Cluster, stamps: Stamps) -> None:
    run, worker = begin_on(system, stamps, 2.0)
    with in_force(Stop(worker)):
        (row,) = system.until_completed([run], 20)
    assert (row["attempt"], row["failures"], row["losses"]) == (1, 0, 0)


@pytest.mark.chaos
def test_runs_of_two_workers_that_die_one_after_the_other_end_all_the_same(
    system: Cluster, stamps: Stamps, timings: Timings
) -> None:
    runs = system.submit_many(6, command=stamps.command(1.0))
    stamps.until_begun(runs)
    faults: list[Fault] = [Kill(worker, "worker") for worker in system.of("worker")]
    with in_force(*faults):
        rows = system.until_completed(runs, timings.lease + 30)
    assert all(row["failures"] == 0 for row in rows)
    assert not any(execution.shared for run in runs for execution in stamps.of(run))


def test_a_worker_that_cannot_bury_the_one_before_it_can_be_stopped(system: Cluster, figure: Figure) -> None:
    worker = system.of("worker")[0]
    trap = Trap(worker, Point.BURYING, "stop")
    with in_force(trap):
        Kill(worker, "worker").inject()
        until_sync(lambda: trap.sprung, 15, "it is about to bury the one before it")
        Cut(worker, "postgres").inject()
    figure("stopped after", worker.stop(30), 10.0)


def test_an_idle_worker_that_cannot_reach_postgresql_can_be_stopped(system: Cluster, figure: Figure) -> None:
    worker = system.of("worker")[0]
    with in_force(Cut(worker, "postgres")):
        figure("stopped after", worker.stop(30), 10.0)
