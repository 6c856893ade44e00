"""Migrations: the schema is what its migrations make, and any number of processes may start at once."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from scheduler.store import migrate
from scheduler.store.database import Database
from tests.support.schema import SNAPSHOT, describe
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def test_the_schema_equals_its_migrations(database_url: str) -> None:
    """After a deliberate change: `python -m tests.support.schema`, and read the difference before committing it."""
    assert await describe(database_url) == SNAPSHOT.read_text("utf-8").splitlines()


async def test_concurrent_starts_apply_every_migration_once(empty_database_url: str) -> None:
    applied: list[str] = []

    async def start() -> None:
        database = await Database.connect(empty_database_url, name="starter", max_size=2)
        applied.extend(migration.version for migration in await migrate.up(database))
        await database.close()

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(start)
    assert applied == [migration.version for migration in migrate.available()]


async def test_status_and_a_second_run_report_that_nothing_is_missing(empty_database_url: str) -> None:
    database = await Database.connect(empty_database_url, name="operator", max_size=2)
    assert not await migrate.is_current(database)
    assert not any(migration.applied for migration in await migrate.status(database))
    await migrate.up(database)
    assert await migrate.up(database) == []
    assert await migrate.is_current(database)
    await database.close()


async def test_a_migration_that_fails_leaves_the_schema_as_it_was(empty_database_url: str) -> None:
    database = await Database.connect(empty_database_url, name="operator", max_size=2)
    broken = [
        migrate.Migration("20000101000001", "good", "CREATE TABLE good (x int);"),
        migrate.Migration("20000101000002", "bad", "CREATE TABLE bad (x int); SELECT nonsense;"),
    ]
    with pytest.raises(Exception, match="nonsense"):
        await migrate.up(database, broken)
    async with database.session() as connection:
        tables = await connection.fetchrow("SELECT to_regclass('good') AS good, to_regclass('bad') AS bad")
        versions = await connection.fetch("SELECT version FROM schema_migrations")
    assert tables["good"] is not None
    assert tables["bad"] is None
    assert [row["version"] for row in versions] == ["20000101000001"]
    await migrate.up(database, [broken[0], migrate.Migration("20000101000002", "bad", "CREATE TABLE bad (x int);")])
    await database.close()


async def test_no_statement_of_a_migration_takes_too_long_nor_does_who_waits_for_it(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions are told to cut statements short after 30 s; here, and waiting for tables, after a third of a second."""
    monkeypatch.setattr("scheduler.store.migrate._PATIENCE", 0.3)
    slow = [migrate.Migration("20000101000001", "slow", "SELECT pg_sleep(1);")]
    applied: list[str] = []

    async def start() -> None:
        database = await Database.connect(empty_database_url, name="starter", max_size=1, statement_timeout=0.3)
        applied.extend(migration.version for migration in await migrate.up(database, slow))
        async with database.session() as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "300ms"
            assert await connection.fetchval("SHOW lock_timeout") == "0"
        await database.close()

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(start)
    assert applied == ["20000101000001"]


async def test_a_migration_gives_way_to_whoever_reads_the_table_that_it_waits_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump holds what it has read for hours; nobody else may stand behind the migration for as long."""
    monkeypatch.setattr("scheduler.store.migrate._PATIENCE", 0.2)
    monkeypatch.setattr("scheduler.store.migrate._GIVE_WAY", 0.3)
    wide = [migrate.Migration("29990101000000", "wide", "ALTER TABLE leadership ADD COLUMN wide integer;")]
    said: list[str] = []
    done: list[migrate.Migration] = []

    async def start() -> None:
        done.extend(await migrate.up(database, wide, say=said.append))

    async def waits() -> bool:
        async with database.session() as connection:
            return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))

    async with anyio.create_task_group() as group, database.session() as dump:
        async with dump.transaction():
            await dump.execute("LOCK TABLE leadership IN ACCESS SHARE MODE")
            group.start_soon(start)
            for _ in range(3):
                await until(waits)
                with anyio.fail_after(5):
                    await database.fetchrow("read_term")
            await until(lambda: said)
            assert not done
        await until(lambda: done)
    assert done == wide
    assert said == ["29990101000000 wide waits for a table that somebody holds: a dump, a long transaction"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("20260101000000_x.sql", "SELECT 1;\n"),
        ("1_x.sql", "-- migrate:up\n"),
        ("20260101000000.sql", "-- migrate:up\n"),
    ],
)
def test_a_file_that_is_not_in_the_format_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="is no migration"):
        migrate.available(tmp_path)


def test_what_stands_below_migrate_down_is_never_applied(tmp_path: Path) -> None:
    (tmp_path / "20260101000000_x.sql").write_text("-- migrate:up\nSELECT 1;\n-- migrate:down\nDROP TABLE t;\n")
    assert migrate.available(tmp_path) == [migrate.Migration("20260101000000", "x", "SELECT 1;\n")]
