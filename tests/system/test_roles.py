"""The three roles under roles of PostgreSQL that may do no more than they need."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import asyncpg
import pytest

from scheduler.store import migrate
from scheduler.store.database import Database
from scheduler.store.history import History
from tests.support.cluster import cluster
from tests.support.recurring import lead
from tests.support.servers import Servers
from tests.support.up import CHECKOUT
from tests.support.waiting import until_sync
from tests.system.faults.support import reachable_directory

SCRIPT = Path(CHECKOUT, "migrations", "roles.sql.example")


@pytest.fixture
def home() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


def under(url: str, role: str) -> str:
    """The URL of a session with the rights of a role."""
    return f"{url}&role={role}"


async def _prepare(url: str) -> None:
    database = await Database.connect(url, name="test", max_size=1)
    owner: Database | None = None
    try:
        await migrate.up(database)
        await _run_script(database)
        owner = await Database.connect(under(url, "dts_migrate"), name="test", max_size=1)
        later = "CREATE TABLE later (id integer); ALTER TABLE runs ADD COLUMN later integer"
        assert await migrate.up(owner, [migrate.Migration("29990101000000", "later", later)])
        await _run_script(database)  # as often as one likes
    finally:
        await database.close()
        if owner is not None:
            await owner.close()


async def _run_script(database: Database) -> None:
    async with database.session() as connection, connection.transaction():
        await connection.execute(await anyio.Path(SCRIPT).read_text(encoding="utf-8"))


def test_every_role_does_its_work_with_the_rights_of_its_own(servers: Servers, home: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    with cluster(
        servers, home / "system", apis=0, schedulers=0, workers=0, secrets__master_key=key,
        prepare=lambda url: anyio.run(_prepare, url),
    ) as system:  # fmt: skip
        for role in ("api", "scheduler", "scheduler", "worker"):
            system.add(role, database__url=under(system.postgres.url, f"dts_{role}"))
        system.until_ready()
        assert system.request("POST", "/api/secrets", json={"name": "s", "value": "hidden"}).status_code == 201
        runs = system.submit_many(20, env={"S": {"secret": "s"}})
        runs += [system.submit(retry={"max_attempts": 2})["last_run"]["id"]]
        upstream = system.submit("sleep 0.2")
        runs += [system.submit(depends_on=[{"task": upstream["id"]}])["last_run"]["id"]]
        system.until_completed(runs)
        every_second = system.submit(name="each second", schedule="* * * * * *")
        gated = {"concurrency": {"key": "k", "max_runs": 1}, "fairness_key": "f"}
        runs = system.submit_many(5, **gated)
        workflow = {"name": "w", "tasks": [{"name": "a", "command": "true"}]}
        assert system.request("POST", "/api/workflows", json=workflow).status_code == 201
        started = system.request("POST", "/api/workflows/w/runs", json={}).json()
        system.until_completed(runs)
        until_sync(lambda: system.run(started["id"])["state"] == "completed", 15.0, "the workflow has run")
        for method, path, body in (
            ("PATCH", f"/api/tasks/{every_second['id']}", {"priority": 7}),
            ("POST", f"/api/tasks/{every_second['id']}/pause", None),
            ("POST", f"/api/tasks/{every_second['id']}/resume", None),
            ("POST", "/api/queues/default/pause", None),
            ("POST", "/api/queues/default/resume", None),
            ("POST", "/api/calendars", {"name": "c", "dates": ["2030-01-01"]}),
            ("DELETE", "/api/calendars/c", None),
            ("POST", "/api/keys", {"name": "k", "role": "viewer"}),
            ("POST", "/api/namespaces", {"name": "n"}),
            ("PATCH", "/api/namespaces/n", {"max_tasks": 3}),
            ("DELETE", "/api/namespaces/n", None),
            ("DELETE", "/api/secrets/s", None),
            ("DELETE", "/api/workflows/w?cascade=cancel", None),
            ("DELETE", f"/api/tasks/{every_second['id']}?cascade=cancel", None),
        ):
            answer = system.request(method, path, json=body, headers={"Idempotency-Key": path})
            assert answer.is_success, (path, answer.text)
        dead = system.submit("exit 3", retry={"max_attempts": 2, "initial_interval": 0.01})
        until_sync(lambda: system.states().get("dead_letter") == 1, 10.0, "a dead letter")
        assert system.request("POST", "/api/dead-letter/discard", json={"task_id": dead["id"]}).is_success
        until_sync(lambda: system.sql("SELECT count(*) FROM audit_seals")[0][0] > 0, 15.0, "the log is sealed")
        assert system.request("POST", "/api/namespaces", json={"name": "gone"}).status_code == 201
        within = {"DTS-Namespace": "gone"}
        assert system.request("POST", "/api/workflows", json=workflow, headers=within).status_code == 201
        system.sql("UPDATE namespaces SET deleted_at = now(), deleted_by = 'test' WHERE name = 'gone' RETURNING name")
        leader = system.leader()
        leader.kill()
        until_sync(lambda: system.leader() is not leader, 15.0, "another leads")
        until_sync(lambda: system.sql("SELECT count(*) FROM workflows")[0][0] == 0, 15.0, "what was left there is gone")
        system.of("worker")[0].kill()
        system.of("worker")[0].start()
        system.until_ready()
        system.until_completed(system.submit_many(5))
        log = (system.postgres.socket.parent.parent / "postgres.log").read_text()
        denied = [line for line in log.splitlines() if "permission denied" in line or "must be" in line]
        assert not denied, denied


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("api", "UPDATE audit_log SET actor = 'x'"),
        ("api", "DELETE FROM audit_log"),
        ("api", "TRUNCATE audit_log"),
        ("api", "ALTER TABLE audit_log DISABLE TRIGGER ALL"),
        ("api", "SET session_replication_role = replica"),
        ("api", "INSERT INTO audit_seals DEFAULT VALUES"),
        ("api", "UPDATE leadership SET epoch = 9"),
        ("api", "SELECT dts_drop_detached()"),
        ("scheduler", "SELECT * FROM secrets"),
        ("scheduler", "SELECT hash FROM api_keys"),
        ("scheduler", "SELECT run_token_key FROM installation"),
        ("scheduler", "INSERT INTO tasks_recurring DEFAULT VALUES"),
        ("scheduler", "DELETE FROM audit_seals"),
        ("scheduler", "DROP TABLE runs"),
        ("worker", "SELECT * FROM api_keys"),
        ("worker", "SELECT * FROM audit_log"),
        ("worker", "UPDATE secrets SET name = 'x'"),
        ("worker", "UPDATE tasks SET spec = '{}'"),
        ("worker", "INSERT INTO runs DEFAULT VALUES"),
        ("worker", "UPDATE leadership SET epoch = 9"),
    ],
)
async def test_no_role_may_do_what_is_not_its_business(database_url: str, role: str, statement: str) -> None:
    database = await Database.connect(database_url, name="test", max_size=1)
    try:
        await _run_script(database)
    finally:
        await database.close()
    connection = await asyncpg.connect(under(database_url, f"dts_{role}"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_scheduler_makes_and_drops_weeks_of_tables_that_are_not_its_own(database_url: str) -> None:
    database = await Database.connect(database_url, name="test", max_size=1)
    try:
        await _run_script(database)
    finally:
        await database.close()
    connection = await asyncpg.connect(under(database_url, "dts_scheduler"))
    try:
        week = await connection.fetchval("SELECT date_trunc('week', now() + interval '100 days', 'UTC')")
        await connection.execute("SELECT dts_create_week($1)", week)
        assert await connection.fetchval("SELECT dts_detach_week($1)", week) is None
        assert await connection.fetchval("SELECT dts_detach_fires($1)", week) is None
        assert len(await connection.fetch("SELECT dts_drop_detached()")) == 6
    finally:
        await connection.close()
    scheduler = await Database.connect(under(database_url, "dts_scheduler"), name="test", max_size=1)
    try:
        async with scheduler.session() as session:
            await session.execute("SELECT dts_create_week(now() - interval '100 days')")
        assert await History(scheduler).drop_behind(await lead(scheduler), 30 * 86400.0) == []
    finally:
        await scheduler.close()


async def test_the_script_run_again_waits_for_nobody_who_uses_a_table(database_url: str) -> None:
    database = await Database.connect(database_url, name="test", max_size=2, settings={"lock_timeout": "1000"})
    try:
        await _run_script(database)
        async with database.session() as connection, connection.transaction():
            await connection.fetch("SELECT FROM runs")
            await _run_script(database)
    finally:
        await database.close()
