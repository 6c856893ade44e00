from __future__ import annotations

from pathlib import Path

import pytest
from anyio import to_thread

from scheduler.cli import exits
from scheduler.store.database import Database
from scheduler.store.invariants import INVARIANTS
from tests.cli.conftest import Dts
from tests.support.rows import bench, new_task
from tests.support.up import CHECKOUT


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
    assert "postgresql" in done.out


def test_a_machine_is_examined_where_no_server_is_known(dts: Dts, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DTS_DATABASE_URL", "DTS_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    done = dts("doctor")
    assert done.code == exits.OK
    assert {(item["area"], item["verdict"]) for item in done.items if item["name"] == "address"} == {
        ("postgresql", "skipped"),
        ("redis", "skipped"),
    }
    assert "libraries" in {item["name"] for item in done.items}


def test_what_is_wrong_with_live_servers_comes_with_what_mends_it(dts: Dts, database_url: str, redis_url: str) -> None:
    done = dts("doctor", "--database-url", database_url, "--redis-url", redis_url)
    wrong = {(item["area"], item["name"]): item["fix"] for item in done.items if item["verdict"] == "wrong"}
    assert done.code == exits.FAILURE
    assert wrong[("fleet", "leader")].startswith("start dts-scheduler")
    assert wrong[("fleet", "workers")] == "start dts-worker"
    good = {(item["area"], item["name"]) for item in done.items if item["verdict"] == "ok"}
    assert {("postgresql", "version"), ("postgresql", "clock"), ("redis", "fit"), ("schema", "migrations")} <= good


def test_a_login_without_any_right_is_said_to_be_refused(dts: Dts, database_url: str) -> None:
    done = dts("doctor", "--database-url", f"{database_url}&role=pg_monitor")
    (refused,) = [item for item in done.items if item["name"] == "answers"]
    assert (done.code, refused["area"], refused["verdict"]) == (exits.FAILURE, "postgresql", "wrong")
    assert refused["says"] == "permission denied for table schema_migrations"
    assert "dts_migrate" in refused["fix"]


def test_a_schema_that_is_behind_is_said_to_be(dts: Dts, empty_database_url: str) -> None:
    done = dts("doctor", "--database-url", empty_database_url)
    (schema,) = [item for item in done.items if item["area"] == "schema"]
    assert (schema["verdict"], schema["fix"]) == ("wrong", "dts migrate up")


def test_redis_that_is_away_is_said_to_be(dts: Dts, database_url: str) -> None:
    done = dts("doctor", "--database-url", database_url, "--redis-url", "redis://127.0.0.1:1")
    assert done.code == exits.UNAVAILABLE
    assert ("redis", "reachable", "wrong") in {(i["area"], i["name"], i["verdict"]) for i in done.items}


@pytest.mark.anyio
@pytest.mark.parametrize("role", ["dts_api", "dts_scheduler", "dts_worker"])
async def test_a_login_with_few_rights_is_enough_or_is_told_which_one_is(
    database: Database, database_url: str, dts: Dts, role: str
) -> None:
    script = Path(CHECKOUT, "migrations", "roles.sql.example").read_text(encoding="utf-8")  # noqa: ASYNC240 - once
    async with database.session() as connection, connection.transaction():
        await connection.execute(script)
    url = f"{database_url}&role={role}"
    done = await to_thread.run_sync(lambda: dts("doctor", "--json", "--database-url", url))
    verdicts = {(item["area"], item["name"]): item["verdict"] for item in done.items}
    assert (verdicts[("schema", "migrations")], verdicts[("fleet", "leader")]) == ("ok", "wrong")
    promises = await to_thread.run_sync(lambda: dts("doctor", "--invariants", "--json", "--database-url", url))
    if role == "dts_scheduler":
        assert promises.code == exits.OK, promises.err
    else:
        assert (promises.code, "dts_scheduler" in promises.err) == (exits.FAILURE, True)
