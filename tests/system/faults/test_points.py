"""A process dies, stops or fails between any two steps of a transition: everything still ends once, and alone."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from scheduler.failpoints import Point
from tests.support.cluster import Cluster, cluster
from tests.support.cluster.faults import Kill, Redis, Trap, in_force
from tests.support.cluster.member import Member
from tests.support.failpoints import Action
from tests.support.servers import Servers
from tests.support.waiting import until_sync
from tests.system.faults.conftest import Timings
from tests.system.faults.support import Stamps, fill, small_disk, spread, until_quick

_numbers = itertools.count(1)

WITH_FIRES = {Point.FIRE_DECIDED, Point.FIRE_WRITTEN, Point.TERM_HELD}
WITH_A_DEAD_WORKER = {Point.REAP_FLIPPED, Point.REAP_COMMITTED}
WITH_A_RESTARTED_WORKER = {Point.WORKER_ENDED, Point.TREE_EMPTY, Point.BURYING}
API = {Point.INTAKE_COMMITTED, Point.INTAKE_FORCING, Point.OFFERS_SENDING}
SCHEDULER = (
    WITH_FIRES | WITH_A_DEAD_WORKER | {Point.TERM_TAKEN, Point.TERM_RENEWING, Point.PROMOTED, Point.LANE_CLEARED}
)
ACTIONS = {"guard": ("crash", "pause"), "spawner": ("crash", "stop")}
EVERY_DAY = {
    (Point.CLAIM_COMMITTED, "crash"),
    (Point.FINISH_COMMITTED, "error"),
    (Point.INTAKE_COMMITTED, "crash"),
    (Point.INTAKE_FORCING, "crash"),
    (Point.SPAWNED, "crash"),
}


def cases() -> Iterator[object]:
    for point in Point:
        if point == Point.WORKER_KILLED:  # needs a lease that runs out: see the frozen workers
            continue
        for action in ACTIONS.get(point.partition(".")[0], ("crash", "stop", "error")):
            marks = () if (point, action) in EVERY_DAY else pytest.mark.chaos
            yield pytest.param(point, action, marks=marks, id=f"{action} at {point}")


@pytest.mark.parametrize(("point", "action"), [*cases()])
def test_between_any_two_steps(system: Cluster, stamps: Stamps, timings: Timings, point: Point, action: Action) -> None:
    runs = system.submit_many(4, command=stamps.command(0.3))
    stamps.until_begun(runs[:1])
    if point == Point.INTAKE_FORCING:  # only a run that is queued at once gets there: its lane has to be open
        until_sync(lambda: system.submit()["last_run"]["state"] == "queued", 15, "the lane to open")
    traps = [Trap(member, point, action) for member in victims(system, point)]
    with in_force(*traps):
        provoke(system, point)
        with contextlib.suppress(httpx2.HTTPError, AssertionError):
            runs += system.submit_many([{"command": stamps.command(0.2), **each} for each in spread(6, 0.0, 0.5)])
        with contextlib.suppress(httpx2.HTTPError, AssertionError):
            runs += system.submit_many(4, command=stamps.command(0.2))
        until_sync(lambda: any(trap.sprung for trap in traps), 2 * timings.lease + 10, f"somebody gets to {point}")
    for member in system.members:
        if not member.alive:
            member.start()
    rows = system.until_completed(runs, 3 * timings.lease + 20)
    assert all(row["failures"] == 0 for row in rows)
    assert not any(execution.shared for run in runs for execution in stamps.of(run))


def victims(system: Cluster, point: Point) -> list[Member]:
    if point in API:
        return system.of("api")
    return system.of("scheduler") if point in SCHEDULER else system.of("worker")


def provoke(system: Cluster, point: Point) -> None:
    """Make somebody get there."""
    if point in WITH_FIRES:
        number, soon = next(_numbers), (datetime.now(UTC) + timedelta(seconds=8)).isoformat()
        upstream = system.submit(name=f"fires-{number}", schedule="* * * * * *", ends_at=soon)["id"]
        edge = {"task": upstream, "on": "completion"}
        system.submit(name=f"follows-{number}", schedule="* * * * * *", ends_at=soon, depends_on=[edge])
    elif point in WITH_A_DEAD_WORKER:
        Kill(system.of("worker")[0], "everything").inject()
    elif point in WITH_A_RESTARTED_WORKER:
        worker = system.of("worker")[0]
        if point == Point.BURYING:  # a guard whose workers die often waits longer and longer between them
            worker.stop()
            worker.start()
            query = "SELECT FROM workers WHERE state = 'live' AND pid = $1"
            until_sync(lambda: system.sql(query, worker.worker.pid), 15)
        Kill(worker, "worker").inject()
    elif point == Point.TERM_TAKEN:
        Kill(system.leader()).inject()
    elif point == Point.INTAKE_FORCING:
        with contextlib.suppress(httpx2.HTTPError, AssertionError):
            system.submit()
    elif point == Point.LANE_CLEARED:
        Redis(system, "restart").inject()


@pytest.mark.alone
def test_a_worker_whose_disk_is_full_goes_on(servers: Servers, home: Path) -> None:
    (home / "small").mkdir()
    with small_disk(home / "small", "1m") as disk, cluster(servers, home, worker__state_dir=str(disk)) as system:
        checkpointing = system.submit_many(
            1, command="echo saved >$DTS_CHECKPOINT_FILE; [ $DTS_ATTEMPT = 2 ] || sleep 60", checkpoint={}
        )
        until_sync(lambda: system.sql("SELECT count(*) FROM checkpoints")[0][0], 15)
        fill(disk / "ballast")
        loud = system.submit_many(2, command="head -c 3000000 /dev/zero | tr '\\0' x")
        system.until_completed([*loud, *system.submit_many(20)])
        Kill(system.of("worker")[0], "worker").inject()
        system.until_completed(system.submit_many(5))
        (disk / "ballast").unlink()
        until_quick(system)
        assert system.until_completed(checkpointing, 30)[0]["failures"] == 0
