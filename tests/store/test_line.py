"""A line to PostgreSQL on which nothing comes through: who waits learns of it soon, and goes on when it is mended."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import pytest
from anyio import create_task_group
from anyio.abc import SocketStream, TaskGroup

from scheduler.health import Health
from scheduler.service import Service
from scheduler.store.database import Database, StoreUnavailable
from scheduler.store.line import RETRIES
from tests.support.cluster.links import Direction, Link, relayed, tcp_listener
from tests.support.line import hurry_lookout
from tests.support.servers import Servers
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


async def test_idle_sessions_over_a_network_are_kept_alive(servers: Servers, database_url: str) -> None:
    listener = tcp_listener("127.0.0.1")
    url = f"postgresql://dts@127.0.0.1:{listener.getsockname()[1]}/{urlsplit(database_url).path[1:]}?sslmode=disable"
    with relayed("tcp", servers.portal, listener, servers.postgres.socket):
        database = await Database.connect(url, name="test", max_size=2)
        async with database.session() as connection:
            used = connection._con._transport.get_extra_info("socket")
            assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        await database.close()


async def test_a_way_on_which_the_settings_of_sessions_are_lost_is_refused(
    servers: Servers, database_url: str, tmp_path: Path
) -> None:
    """As PgBouncer does with `ignore_startup_parameters`."""

    async def pump(source: SocketStream, sink: SocketStream, group: TaskGroup) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await sink.send(await source.receive())
        group.cancel_scope.cancel()

    async def pool(client: SocketStream) -> None:
        async with client, await anyio.connect_unix(servers.postgres.socket) as server, create_task_group() as group:
            packet = await client.receive()
            words = packet[8:].split(b"\0")
            asked = zip(words[::2], words[1::2], strict=False)
            kept = b"".join(b"%b\0%b\0" % (name, value) for name, value in asked if name in (b"user", b"database"))
            await server.send((len(kept) + 9).to_bytes(4) + packet[4:8] + kept + b"\0")
            group.start_soon(pump, client, server, group)
            group.start_soon(pump, server, client, group)

    url = database_url.replace(str(servers.postgres.socket.parent), str(tmp_path))
    listener = await anyio.create_unix_listener(tmp_path / ".s.PGSQL.5432")
    async with listener, create_task_group() as group:
        group.start_soon(listener.serve, pool)
        with pytest.raises(StoreUnavailable, match=r"plan_cache_mode, statement_timeout.*a pooler"):
            await Database.connect(url, name="test", max_size=2)
        group.cancel_scope.cancel()


async def test_whoever_is_stopped_in_a_transaction_keeps_his_locks_for_a_quarter_of_a_minute_at_most(
    database: Database, database_url: str
) -> None:
    async with database.session() as connection:
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "15s"
    hasty = await Database.connect(
        database_url, name="test", max_size=1, settings={"idle_in_transaction_session_timeout": "100"}
    )

    stopped = await hasty.fetchval("own_backend")

    async def gone() -> bool:
        async with database.session() as connection:
            return not await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", stopped)

    async def stop_and_go_on() -> None:
        async with hasty.transaction() as transaction:
            await until(gone)
            await transaction.fetchval("own_backend")

    with pytest.raises(StoreUnavailable):
        await stop_and_go_on()
    assert await hasty.fetchval("own_backend") != stopped
    await hasty.close()


@asynccontextmanager
async def looked_after(far_url: str, health: Health) -> AsyncIterator[Database]:
    database = await Database.connect(far_url, name="test", max_size=2)
    hurry_lookout(database, far_url)
    async with Service("test", health=health) as service:
        service.loop("database", database.lookout.step, backoff=RETRIES)
        yield database
    await database.close(patience=0.2)


@pytest.mark.parametrize("direction", ["both", "to server", "from server"])
async def test_what_waits_on_a_line_that_was_cut_fails_soon_and_all_goes_on_once_it_is_mended(
    far_url: str, link: Link, health: Health, direction: Direction, caplog: pytest.LogCaptureFixture
) -> None:
    failed: list[str] = []

    async def wait_for_an_answer(database: Database) -> None:
        try:
            await database.fetchval("database_now")
        except StoreUnavailable as error:
            failed.append(str(error))

    async with looked_after(far_url, health) as database, database.kept_connection() as kept:
        await kept.fetchval("database_now")
        await until(lambda: "test.database" in health.snapshot(), what="the lookout asks")
        gc.collect()  # what the loop says of earlier tests' leavings is not of this one
        caplog.clear()
        link.cut(direction)
        with anyio.fail_after(20):  # a statement by itself waits for 30 seconds
            async with anyio.create_task_group() as group:
                for _ in range(3):  # one more than there are connections: it waits for its turn
                    group.start_soon(wait_for_an_answer, database)
                with pytest.raises(StoreUnavailable):
                    await kept.fetchval("database_now")
            assert len(failed) == 3
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await database.fetchval("database_now")
        assert not health.snapshot()["test.database"].ok
        link.mend()
        await until(lambda: health.snapshot()["test.database"].ok, what="it answers again")
        assert await database.fetchval("database_now")
        assert await kept.fetchval("database_now")
    assert not caplog.records, "the driver adds tracebacks to what is said in one line"


async def test_a_statement_that_takes_long_is_let_be_while_the_server_answers(far_url: str, health: Health) -> None:
    async with looked_after(far_url, health) as database, database.session() as connection:
        assert await connection.fetchval("SELECT 'done' FROM pg_sleep(1)") == "done"


@pytest.mark.parametrize("kept", [False, True])
async def test_a_session_that_takes_no_writes_is_left_for_a_new_one(database_url: str, kept: bool) -> None:
    """As after a failover that leads to a standby for a moment: the session stays there, whatever comes after."""
    database = await Database.connect(database_url, name="test", max_size=1)
    run_id = uuid4()
    try:
        async with database.session() as connection:
            await connection.execute("SET default_transaction_read_only = on")
        async with database.kept_connection() if kept else nullcontext(database) as executor:
            with pytest.raises(StoreUnavailable, match="read-only"):
                await executor.execute("trim_output", run_id, 1, 0)
            await executor.execute("trim_output", run_id, 1, 0)
    finally:
        await database.close()


async def test_a_session_that_takes_no_writes_in_a_transaction_is_left_too(database_url: str) -> None:
    database = await Database.connect(database_url, name="test", max_size=1)
    try:
        async with database.session() as connection:
            await connection.execute("SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailable, match="read-only"):
            async with database.transaction() as transaction:
                await transaction.execute("trim_output", uuid4(), 1, 0)
        async with database.transaction() as transaction:
            await transaction.execute("trim_output", uuid4(), 1, 0)
    finally:
        await database.close()
