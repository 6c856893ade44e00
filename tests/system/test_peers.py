"""What has gone wrong in other schedulers, forced here. `docs/reliability.md` says whose fault was which."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from scheduler.worker import linux
from tests.support.cluster import Cluster, cluster
from tests.support.cluster.faults import Cut, Redis, in_force
from tests.support.servers import Servers
from tests.support.waiting import until_sync
from tests.system.faults.support import reachable_directory, until_quick

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def system(servers: Servers) -> Iterator[Cluster]:
    """Two schedulers and two workers, all on one host, and the workers with one name."""
    home = Path(tempfile.mkdtemp(prefix="dts-peers-", dir="/tmp"))
    try:
        with cluster(servers, home, schedulers=2, workers=2, network="relay", worker__name="same") as made:
            yield made
    finally:
        shutil.rmtree(home, ignore_errors=True)


def fires(system: Cluster, task_id: str) -> int:
    return system.sql("SELECT count(*) FROM fires WHERE task_id = $1::text::uuid", task_id)[0][0]


@pytest.mark.skipif(not linux.SUPPORTED, reason="needs a guard")
def test_processes_that_share_their_host_and_name_are_told_apart(system: Cluster) -> None:
    with reachable_directory() as shared:
        _told_apart(system, shared / "go")


def _told_apart(system: Cluster, go: Path) -> None:
    runs = system.submit_many(8, command=f"until [ -e {go} ]; do sleep 0.05; done")
    until_sync(lambda: system.states().get("running") == 8, what="all to execute")
    killed, other = system.of("worker")
    theirs = {str(row["id"]): row["pid"] for row in system.sql("SELECT id, pid FROM workers WHERE state = 'live'")}
    assert len(theirs) == 2
    lost = killed.worker.pid
    executed_by = {run: theirs[str(system.run(run)["worker_id"])] for run in runs}
    assert set(executed_by.values()) == {lost, other.worker.pid}
    killed.worker.kill()
    go.touch()
    system.until_quiet(40)
    for run in runs:
        row = system.run(run)
        assert row["state"] == "completed"
        outcomes = [
            attempt["outcome"]  # one that was lost with others waits for a worker without another such: requeued
            for attempt in system.sql("SELECT outcome FROM attempts WHERE run_id = $1::text::uuid", run)
            if attempt["outcome"] != "requeued"
        ]
        assert sorted(outcomes) == (["completed", "lost"] if executed_by[run] == lost else ["completed"])
    system.until_ready()


@pytest.mark.alone
def test_work_is_dispatched_again_after_redis_was_away_and_nobody_was_restarted(system: Cluster) -> None:
    before = {member.name: member.pid for member in system.members}
    workers = {member.worker.pid for member in system.of("worker")}
    for fault in (Redis(system, "restart"), Redis(system, "flush"), Redis(system, "restart")):
        fault.inject()
        system.submit_many(20)
        system.until_quiet()
    # Without Redis, a worker finds a run when it has waited for a second.
    until_quick(system)
    assert {member.name: member.pid for member in system.members} == before
    assert {member.worker.pid for member in system.of("worker")} == workers


def test_a_database_that_never_answers_halts_nobody_for_good(system: Cluster) -> None:
    answer = system.request("POST", "/api/tasks", json={"name": "beat", "command": "true", "schedule": "@every 1s"})
    assert answer.status_code == 201, answer.text
    task_id = answer.json()["id"]
    until_sync(lambda: fires(system, task_id) > 0, what="the first fire")
    first = system.leader()
    second = next(member for member in system.of("scheduler") if member is not first)
    with in_force(Cut(first, "postgres", "from server")):
        until_sync(lambda: system.leader() is second, 20, "the other one to lead")
        seen = fires(system, task_id)
        until_sync(lambda: fires(system, task_id) > seen + 1, what="fires by the other one")
    with in_force(Cut(second, "postgres", "both")):
        until_sync(lambda: system.leader() is first, 20, "the first one to lead again, as the same process")
        seen = fires(system, task_id)
        until_sync(lambda: fires(system, task_id) > seen + 1, what="fires by the first one")
    rows = system.sql(
        "SELECT count(*), count(DISTINCT scheduled_for) FROM runs WHERE task_id = $1::text::uuid", task_id
    )
    assert rows[0][0] == rows[0][1]
    assert system.request("POST", f"/api/tasks/{task_id}/pause").status_code == 200
    assert all(psutil.pid_exists(member.pid) for member in system.members)


def test_every_test_that_the_documentation_names_exists() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("reliability.md", "protocol-tests.md"))
    defined = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named
    assert named <= defined, named - defined
