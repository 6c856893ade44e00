from __future__ import annotations

from pathlib import Path

import pytest
from anyio import to_thread

from scheduler.cli import exits
from scheduler.store.database import Database
from scheduler.store.invariants import INVARIANTS
from tests.cli.conftest import Dts
from tests.support.rows import bench, new_task


def test_a_system_that_keeps_its_promises_passes(dts: Dts, database_url: str) -> None:
    done = dts("doctor", "--invariants", "--json", "--database-url", database_url)
    assert done.code == exits.OK
    assert [item["name"] for item in done.items] == [invariant.name for invariant in INVARIANTS]
    assert not any(item["violations"] for item in done.items)


@pytest.mark.anyio
async def test_a_broken_promise_is_named_with_what_breaks_it(database: Database, database_url: str, dts: Dts) -> None:
    async with bench(database) as b:
        created = await b.intake.create(new_task("forgotten"))
    async with database.session() as connection:
        await connection.execute("DELETE FROM runs WHERE id = $1", created.run_id)

    done = await to_thread.run_sync(lambda: dts("doctor", "--invariants", "--database-url", database_url))
    assert done.code == exits.FAILURE
    [broken] = [item for item in done.items if item["violations"]]
    assert (broken["promise"], broken["name"]) == (1, "task_without_run")
    assert broken["violations"][0]["subject"] == str(created.task_id)
    assert "forgotten" in broken["violations"][0]["detail"]


def test_a_database_that_is_away_is_said_to_be(dts: Dts, tmp_path: Path) -> None:
    done = dts("doctor", "--database-url", f"postgresql://x@/y?host={tmp_path}")
    assert done.code == exits.UNAVAILABLE
