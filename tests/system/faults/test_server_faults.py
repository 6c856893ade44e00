"""Faults of PostgreSQL and Redis: nothing acknowledged is lost, and work goes on as soon as it can."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import httpx2
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.cluster.faults import Cut, Postgres, Redis, in_force
from tests.support.cluster.links import Direction
from tests.support.servers import Servers
from tests.support.waiting import until_sync
from tests.system.faults.conftest import Timings
from tests.system.faults.support import Figure, Stamps, fill, slow, small_disk, spread, submit_evenly, until_quick

DOWN = [pytest.param(3.0, id="3 s"), pytest.param(30.0, id="30 s", marks=pytest.mark.chaos)]


@pytest.mark.parametrize("what", ["down", slow("freeze")])
@pytest.mark.parametrize("seconds", DOWN)
def test_without_redis_work_starts_within_a_second_and_a_half(
    system: Cluster, figure: Figure, what: str, seconds: float
) -> None:
    with in_force(Redis(system, what)):
        runs = submit_evenly(system, int(20 * seconds), seconds)
        rows = system.until_completed(runs)
        waits = sorted((row["first_started_at"] - row["created_at"]).total_seconds() for row in rows)
        figure("submit to start, p50", waits[len(waits) // 2], 1.5)
        # One that hangs has to be found out first, which takes up to 1.4 s: half of a short outage.
        figure("submit to start, p99", waits[int(len(waits) * 0.99)], 1.5 if seconds > 10 or what == "down" else 2.5)
    figure("normal again after", until_quick(system), 5.0)


@pytest.mark.parametrize("what", ["flush", slow("restart")])
def test_redis_may_forget_everything_at_any_moment(system: Cluster, figure: Figure, what: str) -> None:
    began = time.monotonic()
    runs = system.submit_many(200, command="sleep 0.02")
    runs += system.submit_many(spread(50, 0.2, 2.0))
    Redis(system, what).inject()
    rows = system.until_completed(runs)
    assert all(row["attempt"] == 1 for row in rows)
    figure("all done after", time.monotonic() - began, 10.0)
    figure("normal again after", until_quick(system), 5.0)


@pytest.mark.parametrize("what", [slow("terminate"), slow("restart"), "crash"])
def test_postgresql_may_restart_under_load(
    system: Cluster, stamps: Stamps, timings: Timings, figure: Figure, what: str
) -> None:
    runs = system.submit_many(40, command=stamps.command(0.2))
    stamps.until_begun(runs[:1])
    Postgres(system, what).inject()
    rows = system.until_completed(runs, timings.lease + 20)
    assert all((row["failures"], row["losses"]) == (0, 0) for row in rows)
    assert not any(execution.shared for run in runs for execution in stamps.of(run))
    figure("normal again after", until_quick(system), 5.0)


@pytest.mark.parametrize("seconds", DOWN)
def test_while_postgresql_is_down_the_api_says_so_and_nobody_is_reaped_for_it(
    system: Cluster, stamps: Stamps, timings: Timings, figure: Figure, seconds: float
) -> None:
    workers = "SELECT id FROM workers WHERE state = 'dead'"
    dead = len(system.sql(workers))
    short, long = system.submit_many([{"command": stamps.command(each)} for each in (1.0, seconds + timings.lease)])
    stamps.until_begun([short, long])
    with in_force(Postgres(system, "down")):
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            answer = system.request("POST", "/api/tasks", json={"name": "t", "command": "true"})
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
    healed_at = time.monotonic()
    figure("accepted again after", until_accepted(system), 5.0)
    rows = system.until_completed([short, long], 2 * timings.lease + seconds + 15)
    assert [row["failures"] for row in rows] == [0, 0]
    assert not any(execution.shared for run in (short, long) for execution in stamps.of(run))
    assert len(stamps.of(short)) == 1, "it ended before its lease did"
    figure("normal again after", until_quick(system), 5.0)
    until_sync(lambda: time.monotonic() - healed_at > 1.5 * timings.lease, 2 * timings.lease)  # a storm would have come
    assert len(system.sql(workers)) == dead, "workers were taken for dead because the database was away"
    assert max(row["losses"] for row in system.runs([short, long])) == 0


@pytest.mark.parametrize("direction", ["both", slow("to server"), slow("from server")])
def test_an_api_that_cannot_reach_postgresql_says_so_within_five_seconds_and_can_be_stopped(
    system: Cluster, figure: Figure, direction: Direction
) -> None:
    (api,) = system.of("api")
    with in_force(Cut(api, "postgres", direction)):
        for what, limit in (("answered after", 5.0), ("the next after", 0.5)):
            began = time.monotonic()
            answer = system.request("POST", "/api/tasks", json={"name": "t", "command": "true"})
            figure(what, time.monotonic() - began, limit)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
    figure("accepted again after", until_accepted(system), 5.0)
    with in_force(Cut(api, "postgres", direction)):
        figure("stopped after", api.stop(30), 10.0)


@pytest.mark.chaos
def test_a_full_disk_of_postgresql_refuses_work_and_loses_none(servers: Servers, home: Path) -> None:
    with small_disk(servers.next_home(), "220m") as disk, cluster(servers, home) as system:
        ballast = disk / "ballast"
        fill(ballast)
        acknowledged, refused = [], 0
        began = time.monotonic()
        while refused < 5 and time.monotonic() - began < 60:
            body = {"name": "t", "command": "true", "stdin": os.urandom(100_000).hex()}
            with contextlib.suppress(httpx2.HTTPError):
                answer = system.request("POST", "/api/tasks", json=body)
                assert answer.status_code in {201, 503}, answer.text
                refused += answer.status_code == 503
                if answer.status_code == 201:
                    acknowledged.append(answer.json()["last_run"]["id"])
        assert refused
        ballast.unlink()
        try:
            system.sql("SELECT 1")
        except OSError:  # it could not recover before there was room again
            system.postgres.wait()
            system.postgres.start()
        until_accepted(system)
        system.until_quiet(60)
        assert [tuple(row) for row in system.sql("SELECT DISTINCT state, reason FROM runs")] == [
            ("completed", "exit:0")
        ]
        assert len(system.runs(acknowledged)) == len(acknowledged)


def until_accepted(system: Cluster) -> float:
    began = time.monotonic()

    def accepted() -> bool:
        try:
            return system.request("POST", "/api/tasks", json={"name": "t", "command": "true"}).status_code == 201
        except httpx2.HTTPError:
            return False

    until_sync(accepted, 15)
    return time.monotonic() - began
