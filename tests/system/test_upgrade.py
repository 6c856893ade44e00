"""Two releases at once: the one before keeps working while the schema moves on, and beside its successor."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.servers import Servers
from tests.support.up import CHECKOUT
from tests.support.waiting import until_sync
from tests.system.faults.support import reachable_directory

PREVIOUS = "b1715d4d0a7b"
"""The commit of the release before this one."""
VARIABLE = "DTS_TEST_PREVIOUS"
"""Names a wheel of the release before, for a checkout without its history."""


@pytest.fixture
def home() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


@pytest.fixture
def previous(home: Path) -> Path:
    """The tree of the release before, which any interpreter that has its dependencies can import."""
    tree = home / "previous"
    wheel = os.environ.get(VARIABLE)
    if wheel:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree)
        return tree
    git = shutil.which("git")
    archived = git and subprocess.run(
        [git, "-C", CHECKOUT, "archive", PREVIOUS, "scheduler", "migrations"], capture_output=True, check=False
    )
    if not archived or archived.returncode != 0:
        pytest.skip(f"the release before this one is not here: fetch the history of {PREVIOUS}, or set {VARIABLE}")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(tree, filter="data")
    return tree


def dts(release: Path, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "scheduler", *words],
        check=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(release), "PYTHONSAFEPATH": "1"},
    )


def every_run_once(system: Cluster, runs: list[str]) -> None:
    rows = system.until_completed(runs, 60.0)
    assert {(row["attempt"], row["failures"], row["losses"]) for row in rows} == {(1, 0, 0)}
    assert system.sql("SELECT count(*) FROM attempts WHERE run_id = ANY($1::text[]::uuid[])", runs)[0][0] == len(runs)


def test_the_release_before_works_on_while_the_schema_moves_on_and_beside_its_successor(
    servers: Servers, home: Path, previous: Path
) -> None:
    with cluster(
        servers, home / "system", apis=0, schedulers=0, workers=0,
        prepare=lambda url: dts(previous, "migrate", "up", "--database-url", url),
    ) as system:  # fmt: skip
        settings, system.settings = (
            system.settings,
            {key: value for key, value in system.settings.items() if not key.startswith("auth.")},
        )
        old = [system.add(role, release=previous) for role in ("api", "scheduler", "worker")]
        system.until_ready()
        everything = system.submit_many(40)
        every_fire = system.submit(name="each second", schedule="* * * * * *", overlap="allow_all")

        running = system.submit_many(40, command="sleep 0.3")
        dts(CHECKOUT, "migrate", "up", "--database-url", system.postgres.url)
        everything += running + system.submit_many(40)
        every_run_once(system, everything)

        system.settings = settings
        new = [system.add(role) for role in ("api", "scheduler", "worker")]
        system.until_ready()
        for api in (old[0], new[0]) * 3:
            everything += system.submit_many(20, api=api, command="sleep 0.05")
        edited = system.request("PATCH", f"/api/tasks/{every_fire['id']}", api=new[0], json={"priority": 7},
                                headers={"Content-Type": "application/merge-patch+json"})  # fmt: skip
        assert edited.status_code == 200, edited.text
        every_run_once(system, everything)
        hosts = system.sql("SELECT DISTINCT w.version FROM attempts a JOIN workers w ON w.id = a.worker_id")
        assert len(system.sql("SELECT DISTINCT worker_id FROM attempts")) == 2, hosts

        for member in old:
            member.stop()
        until_sync(lambda: system.leader() is new[1], 10.0, "the new scheduler leads")
        everything += system.submit_many(40, api=new[0])
        every_run_once(system, everything)
        until_sync(lambda: len(system.sql("SELECT DISTINCT epoch FROM fires")) == 2, 10.0, "the new scheduler fires")
        twice = "SELECT scheduled_for FROM runs WHERE trigger = 'schedule' GROUP BY 1 HAVING count(*) > 1"
        assert system.sql(twice) == []
        fires = system.sql("SELECT disposition FROM fires")
        assert {fire["disposition"] for fire in fires} <= {"fired", "late"}
        dts(CHECKOUT, "doctor", "--invariants", "--database-url", system.postgres.url)
