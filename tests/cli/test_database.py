"""Commands that talk to PostgreSQL themselves, where it refuses them or goes away."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyio import to_thread

from scheduler.cli import exits
from scheduler.cli.database import with_database
from scheduler.store.database import Database, StoreUnavailable
from tests.cli.conftest import Dts
from tests.support.up import CHECKOUT

COMMANDS = [
    ("key", "create", "--bootstrap", "--name", "k"),
    ("audit", "verify"),
    ("audit", "prune", "--older-than", "1d"),
    ("doctor", "--invariants"),
]


@pytest.mark.parametrize("words", [*COMMANDS, ("migrate", "up"), ("migrate", "status"), ("doctor",)], ids=" ".join)
def test_a_login_that_is_refused_is_said_to_be(dts: Dts, database_url: str, words: tuple[str, ...]) -> None:
    done = dts(*words, "--database-url", database_url.replace("dts@", "stranger@"))
    assert done.code == exits.UNAVAILABLE
    assert "authentication failed for user" in done.out + done.err


@pytest.mark.anyio
async def test_a_role_waits_for_a_login_that_is_refused(database_url: str) -> None:
    with pytest.raises(StoreUnavailable):
        await Database.connect(database_url.replace("dts@", "stranger@"), name="test")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_database_without_its_schema_is_said_to_lack_it(
    dts: Dts, empty_database_url: str, words: tuple[str, ...]
) -> None:
    done = dts(*words, "--database-url", empty_database_url)
    assert (done.code, done.out) == (exits.RETRY, "")
    assert "run dts migrate up" in done.err


def test_a_server_that_goes_away_meanwhile_is_said_to_have_gone(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(database: Database) -> int:
        async with database.session() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return exits.OK

    with pytest.raises(SystemExit) as ended:
        with_database("test", None, database_url, work)
    assert ended.value.code == exits.UNAVAILABLE
    assert capsys.readouterr().err.startswith("dts: ")


@pytest.mark.anyio
@pytest.mark.parametrize("words", [*COMMANDS[:3], ("migrate", "up")], ids=" ".join)
async def test_rights_that_are_missing_are_those_of_the_owner(
    dts: Dts, database: Database, database_url: str, words: tuple[str, ...]
) -> None:
    script = Path(CHECKOUT, "migrations", "roles.sql.example").read_text(encoding="utf-8")  # noqa: ASYNC240 - once
    async with database.session() as connection, connection.transaction():
        await connection.execute(script)
        if words == ("migrate", "up"):
            await connection.execute("DELETE FROM schema_migrations WHERE version = '20261123000016'")
    url = f"{database_url}&role=dts_scheduler"
    done = await to_thread.run_sync(lambda: dts(*words, "--database-url", url))
    assert (done.code, done.out) == (exits.FAILURE, "")
    assert done.err.endswith("connect as the owner of the tables (dts_migrate)\n")


@pytest.mark.anyio
async def test_a_table_of_somebody_else_is_said_to_be_in_the_way(dts: Dts, empty_database_url: str) -> None:
    other = await Database.connect(empty_database_url, name="other", max_size=1)
    async with other.session() as connection:
        await connection.execute("CREATE TABLE tasks ()")
    await other.close()
    done = await to_thread.run_sync(lambda: dts("migrate", "up", "--database-url", empty_database_url))
    assert (done.code, done.out, done.err) == (exits.FAILURE, "", 'dts: relation "tasks" already exists\n')


@pytest.mark.anyio
async def test_what_takes_too_long_is_said_to_have_been_cut_short(
    dts: Dts, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.invariants._TIMEOUT", 0.2)
    async with database.session() as connection, connection.transaction():
        await connection.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        done = await to_thread.run_sync(lambda: dts("doctor", "--invariants", "--database-url", database_url))
    assert (done.code, done.out, done.err) == (exits.FAILURE, "", "dts: canceling statement due to statement timeout\n")
