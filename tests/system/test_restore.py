"""A backup of PostgreSQL is a backup of everything."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.embedded.binaries import find_postgres
from tests.support.cluster import cluster
from tests.support.servers import Servers
from tests.support.waiting import until_sync
from tests.system.faults.support import reachable_directory


@pytest.fixture
def home() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


def test_a_dump_taken_while_everything_runs_brings_everything_back_with_an_empty_redis(
    servers: Servers, home: Path
) -> None:
    programs = find_postgres(home).root / "bin"
    dump = home / "dump"
    with cluster(servers, home / "before", worker__concurrency=2) as system:
        done = system.submit_many(5)
        system.until_completed(done)
        waiting = system.submit_many(5, delay=8)
        after = system.submit(name="after", depends_on=[{"task": system.submit("sleep 5; true", name="slow")["id"]}])
        fires = system.submit(name="each second", schedule="* * * * * *", overlap="allow_all")
        busy = system.submit_many(6, command="sleep 3")
        until_sync(
            lambda: system.states().get("running") == 2 and system.sql("SELECT FROM fires"), what="all kinds of run"
        )
        subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, "-d", system.postgres.url], check=True)

    def restore(url: str) -> None:
        subprocess.run([programs / "pg_restore", "--no-owner", "--exit-on-error", "-d", url, dump], check=True)

    with cluster(servers, home / "after", prepare=restore) as system:
        assert {run["state"] for run in system.runs(done)} == {"completed"}
        for run in system.until_completed([*waiting, *busy, after["last_run"]["id"]], 60.0):
            assert run["failures"] == 0
        seen = "SELECT count(*) FROM fires WHERE task_id = $1::text::uuid AND epoch = (SELECT epoch FROM leadership)"
        until_sync(lambda: system.sql(seen, fires["id"])[0][0] > 0, what="it fires again")
