from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.broker.keys import lane_keys, stream_key
from scheduler.broker.library import library
from scheduler.health import Health
from tests.broker.support import connected, drain, queued, raw, worker
from tests.support.cluster.links import relayed, unix_listener
from tests.support.ports import free_port
from tests.support.servers import ServerHandle, Servers
from tests.support.waiting import until

LANE = ["default"]


@contextlib.asynccontextmanager
async def down(server: ServerHandle, broker: Broker, *, empty: bool = False) -> AsyncIterator[None]:
    if empty:
        await raw(broker, "FLUSHALL")
        await raw(broker, "FUNCTION", "FLUSH")
    await anyio.to_thread.run_sync(server.kill)
    yield
    await anyio.to_thread.run_sync(server.start)


async def answers(broker: Broker) -> bool:
    await broker.ping()
    return True


async def refuses(broker: Broker, why: str) -> bool:
    try:
        await broker.ping()
    except BrokerUnavailable as error:
        return why in str(error)
    return False


async def test_missing_functions_and_groups_are_created_in_the_middle(broker: Broker) -> None:
    runs = queued(4)
    await broker.push(runs[:2])
    await raw(broker, "FUNCTION", "FLUSH")
    (first,) = await broker.read(LANE, worker(), 1, 0.001) or await broker.read(LANE, worker(), 1, 0.5)
    await raw(broker, "FUNCTION", "FLUSH")
    await broker.settle([first])
    await raw(broker, "FUNCTION", "FLUSH")
    await broker.push(runs[2:])
    await raw(broker, "XGROUP", "DESTROY", stream_key("default"), "workers")
    assert len(await drain(broker)) == 3


async def test_functions_are_registered_only_when_missing(broker: Broker) -> None:
    await broker.push(queued(1))
    await raw(broker, "CONFIG", "RESETSTAT")
    await drain(broker)
    await broker.incarnation()
    assert b"cmdstat_function|load" not in await raw(broker, "INFO", "commandstats")


async def test_another_releases_functions_are_left_alone(broker: Broker) -> None:
    code = "#!lua name=dts_0\nredis.register_function('dts_0_push', function() return 1 end)"
    await raw(broker, "FUNCTION", "LOAD", "REPLACE", code)
    await broker.push(queued(1))
    assert await raw(broker, "FCALL", "dts_0_push", 0) == 1
    await raw(broker, "FUNCTION", "DELETE", "dts_0")


def test_the_librarys_name_is_bound_to_its_text() -> None:
    name, text = library()
    assert text.startswith(f"#!lua name={name}\n")
    assert "@" not in text


async def test_a_wipe_does_not_break_a_blocked_reader(own_broker: Broker, redis_server: ServerHandle) -> None:
    got = []

    async def read_on() -> None:
        me = worker()
        while not got:
            got.extend(await own_broker.read(LANE, me, 1, 1.0))

    async with connected(redis_server.url) as other, anyio.create_task_group() as group:
        group.start_soon(read_on)

        async def blocked() -> bool:
            return b"blocked_clients:1\r\n" in await raw(other, "INFO", "clients")

        await until(blocked)
        await raw(other, "FLUSHALL")
        await raw(other, "FUNCTION", "FLUSH")
        await other.push(queued(1))
    assert len(got) == 1


async def test_a_server_killed_and_restarted_empty_is_used_again_by_itself(
    own_broker: Broker, redis_server: ServerHandle
) -> None:
    before = await own_broker.incarnation()
    await own_broker.push(queued(3))
    async with down(redis_server, own_broker, empty=True):
        for call in (own_broker.ping(), own_broker.push(queued(1)), own_broker.read(LANE, worker(), 1, 2.0)):
            started = time.perf_counter()
            with pytest.raises(BrokerUnavailable):
                await call
            assert time.perf_counter() - started < 1.0  # a read waits for two seconds
        assert not own_broker.available
    await until(lambda: answers(own_broker))
    assert own_broker.available
    assert await own_broker.incarnation() != before
    (run,) = queued(1)
    await own_broker.push([run])
    assert await drain(own_broker) == [(run.run_id, 1)]


async def test_a_restart_that_kept_its_data_is_another_incarnation(
    own_broker: Broker, redis_server: ServerHandle
) -> None:
    runs = queued(2)
    await own_broker.push(runs)
    before = await own_broker.incarnation()
    await raw(own_broker, "SAVE")
    async with down(redis_server, own_broker):
        pass
    await until(lambda: answers(own_broker))
    assert await own_broker.incarnation() != before
    assert await drain(own_broker) == [(run.run_id, 1) for run in runs]


async def test_connections_that_a_restart_closed_are_replaced_unnoticed(
    own_broker: Broker, redis_server: ServerHandle
) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(own_broker.ping)
    async with down(redis_server, own_broker):
        pass
    for _ in range(5):
        await own_broker.ping()


async def test_while_it_is_away_calls_fail_at_once(own_broker: Broker, redis_server: ServerHandle) -> None:
    await own_broker.ping()
    async with down(redis_server, own_broker):
        with pytest.raises(BrokerUnavailable):
            await own_broker.ping()
        started = time.perf_counter()
        for _ in range(100):
            with pytest.raises(BrokerUnavailable):
                await own_broker.push(queued(1))
        assert time.perf_counter() - started < 10.0  # a call that waits for its answer takes half a second


async def test_a_frozen_server_costs_one_caller_a_time_out_and_the_others_nothing(
    own_broker: Broker, redis_server: ServerHandle
) -> None:
    await own_broker.ping()
    redis_server.freeze()
    started = time.perf_counter()
    try:
        with pytest.raises(BrokerUnavailable):
            await own_broker.ping()
        frozen = time.perf_counter() - started
        for _ in range(20):
            with pytest.raises(BrokerUnavailable):
                await own_broker.ping()
        assert frozen > 0.5
        assert time.perf_counter() - started < frozen + 5.0  # a probe now and then among them
    finally:
        redis_server.thaw()
    await until(lambda: answers(own_broker))


async def test_a_reader_looking_whether_the_server_is_back_does_not_keep_others_out(
    own_broker: Broker, redis_server: ServerHandle
) -> None:
    assert await own_broker.read(LANE, worker(), 1, 0.001) == []  # makes functions and group, so the next one blocks
    async with down(redis_server, own_broker):
        with pytest.raises(BrokerUnavailable):
            await own_broker.ping()

    async def read() -> bool:
        return bool(await own_broker.read(LANE, worker(), 1, 5.0))

    async with connected(redis_server.url) as other, anyio.create_task_group() as group:

        async def blocked() -> bool:
            return b"blocked_clients:1\r\n" in await raw(other, "INFO", "clients")

        group.start_soon(until, read)
        await until(blocked)
        await own_broker.ping()
        group.cancel_scope.cancel()


async def test_a_broker_starts_without_a_server(tmp_path: Path) -> None:
    for url in (f"unix://{tmp_path}/nothing.sock", "redis://127.0.0.1:1/0"):
        async with connected(url) as broker:
            with pytest.raises(BrokerUnavailable, match="away"):
                await broker.push(queued(1))


async def test_a_server_that_accepts_and_says_nothing_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with connected(f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as broker:
            with pytest.raises(BrokerUnavailable, match="no answer in time"):
                await broker.ping()


async def test_tcp_urls_with_a_database_number_work(own_broker: Broker) -> None:
    port = free_port()
    await raw(own_broker, "CONFIG", "SET", "port", port)
    async with connected(f"redis://127.0.0.1:{port}/3") as broker:
        await broker.push(queued(1))
        assert len(await drain(broker)) == 1
    assert await raw(own_broker, "DBSIZE") == 0


def test_a_url_that_is_none_is_refused_at_once() -> None:
    from scheduler.domain.clock import SystemClock  # noqa: PLC0415

    with pytest.raises(ValueError, match="schemes"):
        Broker.connect("http://127.0.0.1", installation="i", name="test", clock=SystemClock())


async def test_a_closed_broker_is_unavailable(redis_url: str) -> None:
    async with connected(redis_url) as broker:
        await broker.ping()
    with pytest.raises(BrokerUnavailable):
        await broker.ping()


async def test_an_error_of_one_command_is_no_outage(broker: Broker) -> None:
    await raw(broker, "SET", lane_keys("default")[0], "no ready set")
    with pytest.raises(BrokerUnavailable, match="WRONGTYPE"):
        await broker.stats(LANE)
    assert broker.available
    await broker.clear("default")
    await broker.push(queued(1))
    assert len(await drain(broker)) == 1


async def test_a_server_that_becomes_a_replica_is_left_for_the_one_that_leads(
    servers: Servers, redis_server: ServerHandle, tmp_path: Path, health: Health
) -> None:
    """The name then leads to the new one, but the old one closes nothing: it says that it takes no writes."""
    path, channel = tmp_path / "redis", f"test:{worker()}"
    heard: list[bytes] = []
    async with AsyncExitStack() as stack:
        successor = servers.new_valkey(servers.next_name())
        await anyio.to_thread.run_sync(successor.start)
        stack.callback(successor.stop)
        link = stack.enter_context(relayed("redis", servers.portal, unix_listener(path), redis_server.socket))
        broker = await stack.enter_async_context(connected(f"unix://{path}"))
        direct = await stack.enter_async_context(connected(successor.url))
        group = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(group.cancel_scope.cancel)
        group.start_soon(broker.run, health, name="subscriber")
        await broker.listen(channel, heard.append).active.wait()
        await broker.push(queued(1))
        await raw(broker, "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(BrokerUnavailable, match="replica"):
            await broker.push(queued(1))
        assert not broker.available
        await until(lambda: refuses(broker, "it is a replica"))  # new connections lead to it, too
        link.lead_to(successor.socket)
        await until(lambda: answers(broker))
        await broker.push(queued(1))

        async def hears() -> bool:
            await direct.publish(channel, b"here")
            return bool(heard)

        await until(hears)
