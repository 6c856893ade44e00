"""A worker whose database goes away, for less than its lease and for longer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import anyio
import anyio.to_thread

from scheduler.failpoints import Point
from scheduler.store import migrate
from scheduler.store.database import Database
from tests.broker.support import connected
from tests.roles.test_worker_role import shared  # noqa: F401
from tests.roles.worker_role_support import Works, worker
from tests.roles.worker_support import alive, first_line
from tests.support import ServerHandle, until
from tests.support.failpoints import held
from tests.support.rows import run_row


@asynccontextmanager
async def worker_on(server: ServerHandle, redis_url: str, lease: float) -> AsyncIterator[Works]:
    database = await Database.connect(server.url, name="test", statement_timeout=2.0)
    try:
        await migrate.up(database)
        async with connected(redis_url) as broker, worker(database, broker, lease=lease) as works:
            yield works
    finally:
        await database.close()


async def test_an_outcome_waits_for_the_database_to_come_back(
    postgres_server: ServerHandle,
    redis_url: str,
    shared: Path,  # noqa: F811
) -> None:
    async with worker_on(postgres_server, redis_url, lease=60.0) as works:
        go, note = shared / "go", shared / "note"
        run_id = await works.submit(f"echo $$ > {note}; until [ -e {go} ]; do sleep 0.02; done; echo done")
        pid = int(await first_line(note))
        await works.query("CHECKPOINT")  # these servers do not wait for their disks
        await anyio.to_thread.run_sync(postgres_server.kill)
        go.touch()
        await until(lambda: not alive(pid))
        await anyio.to_thread.run_sync(postgres_server.start)
        row = await works.ended_row(run_id)
        assert (row["state"], row["output_tail"], row["attempt"]) == ("completed", "done\n", 1)


async def test_a_worker_that_loses_its_lease_kills_its_commands_and_comes_back_as_another(
    postgres_server: ServerHandle,
    redis_url: str,
    shared: Path,  # noqa: F811
) -> None:
    async with worker_on(postgres_server, redis_url, lease=3.0) as works:
        note = shared / "note"
        run_id = await works.submit(f"echo $$ > {note}; trap '' TERM; exec sleep 60", kill_timeout=60.0)
        pid = int(await first_line(note))
        await works.query("CHECKPOINT")  # these servers do not wait for their disks
        await anyio.to_thread.run_sync(postgres_server.kill)
        await until(lambda: not alive(pid), 10.0, "the command to be killed")
        await anyio.to_thread.run_sync(postgres_server.start)
        row = await works.row_when(run_id, "pending")
        assert (row["reason"], row["losses"], row["failures"]) == ("lost", 0, 0)
        await until(lambda: works.query("SELECT 1 FROM workers WHERE state = 'left' AND end_reason = 'lease_lost'"))
        await until(lambda: works.query("SELECT 1 FROM workers WHERE state = 'live'"))
        assert (await works.ended_row(await works.submit("true")))["state"] == "completed"


async def test_a_worker_that_could_not_say_that_it_left_says_so_when_it_comes_back_as_another(
    postgres_server: ServerHandle, redis_url: str
) -> None:
    async with worker_on(postgres_server, redis_url, lease=3.0) as works:
        await until(lambda: works.query("SELECT 1 FROM workers WHERE state = 'live'"))
        await works.query("CHECKPOINT")  # these servers do not wait for their disks
        await anyio.to_thread.run_sync(postgres_server.kill)
        await until(lambda: not works.health.snapshot()["worker.register"].ok, 10.0, "the lease to be lost")
        await until(lambda: works.health.snapshot()["worker.register"].failures > 1)
        await anyio.to_thread.run_sync(postgres_server.start)
        assert (await works.ended_row(await works.submit("true")))["state"] == "completed"
        rows = await works.query("SELECT state, end_reason FROM workers ORDER BY registered_at")
        assert [tuple(row) for row in rows] == [("left", "lease_lost"), ("live", None)]


async def until_reported_twice(end_command: Callable[[], None]) -> None:
    """Let a command end, and wait until its outcome was refused."""
    with anyio.fail_after(20):
        for _ in range(2):
            with held(Point.FINISH_SENDING) as report:
                end_command()
                await report.reached.wait()


async def start_two(works: Works, directory: Path, last: str = "true") -> tuple[UUID, UUID, Path]:
    """Run a command until a file is there and then `last`, another one beside it; return (run, the other, the file)."""
    go, note = directory / "go", directory / "note"
    neighbour = await works.submit("sleep 60")
    await works.row_when(neighbour, "running")
    run_id = await works.submit(f"echo $$ > {note}; until [ -e {go} ]; do sleep 0.02; done; {last}")
    await first_line(note)
    return run_id, neighbour, go


async def test_an_outcome_waits_for_a_lock_that_is_held_for_longer_than_a_statement_may_take(
    postgres_server: ServerHandle,
    redis_url: str,
    shared: Path,  # noqa: F811
) -> None:
    async with worker_on(postgres_server, redis_url, lease=60.0) as works:
        run_id, neighbour, go = await start_two(works, shared, "echo done")
        async with works.database.transaction() as other:
            await other.target.fetch("SELECT FROM runs WHERE id = $1 FOR UPDATE", run_id)
            await until_reported_twice(go.touch)
        row = await works.ended_row(run_id)
        assert (row["state"], row["output_tail"], row["attempt"]) == ("completed", "done\n", 1)
        assert (await run_row(works.database, neighbour))["state"] == "running"
        assert len(await works.query("SELECT FROM workers")) == 1


async def test_an_outcome_waits_for_a_database_that_takes_no_writes(
    postgres_server: ServerHandle,
    redis_url: str,
    shared: Path,  # noqa: F811
) -> None:
    async with worker_on(postgres_server, redis_url, lease=60.0) as works:
        run_id, neighbour, go = await start_two(works, shared)
        await works.query("ALTER SYSTEM SET default_transaction_read_only = on")
        await works.query("SELECT pg_reload_conf()")
        await until(lambda: not works.health.snapshot()["worker.database claims"].ok, what="writes to be refused")
        await until_reported_twice(go.touch)
        await works.query("ALTER SYSTEM RESET default_transaction_read_only")
        await works.query("SELECT pg_reload_conf()")
        row = await works.ended_row(run_id)
        assert (row["state"], row["attempt"]) == ("completed", 1)
        assert (await run_row(works.database, neighbour))["state"] == "running"
