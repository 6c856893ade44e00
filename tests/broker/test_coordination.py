from __future__ import annotations

import pytest

from scheduler.broker import Broker, BrokerUnfit
from scheduler.broker.keys import LOCK, WORKERS
from scheduler.broker.server import ServerInfo
from tests.broker.support import connected, raw, worker
from tests.support.servers import ServerHandle
from tests.support.waiting import until


async def test_one_holder_at_a_time_has_the_lock(broker: Broker, other: Broker) -> None:
    assert await broker.try_lock("a", 60)
    assert not await other.try_lock("b", 60)
    assert not await broker.try_lock("a", 60)
    assert await raw(other, "GET", LOCK) == b"a"
    assert await broker.renew_lock("a", 60)
    assert not await other.renew_lock("b", 60)
    assert not await other.release_lock("b")
    assert await broker.release_lock("a")
    assert not await broker.renew_lock("a", 60)
    assert await raw(other, "GET", LOCK) is None
    assert await other.try_lock("b", 60)


async def test_a_lock_that_is_not_renewed_expires(broker: Broker, other: Broker) -> None:
    assert await broker.try_lock("a", 0.02)
    await until(lambda: other.try_lock("b", 60))
    assert not await broker.renew_lock("a", 60)
    assert not await broker.release_lock("a")
    assert await raw(broker, "GET", LOCK) == b"b"


async def test_renewing_prolongs_the_lock(broker: Broker) -> None:
    await broker.try_lock("a", 1)
    await broker.renew_lock("a", 60)
    assert await raw(broker, "PTTL", LOCK) > 50_000


async def test_a_worker_is_live_until_its_heartbeat_expires(broker: Broker) -> None:
    lasting, fleeting = worker(), worker()
    await broker.heartbeat(lasting, 60)
    await broker.heartbeat(fleeting, 60)
    assert await broker.live_workers() == {lasting, fleeting}
    await broker.heartbeat(fleeting, 0.001)

    async def expired() -> bool:
        return await broker.live_workers() == {lasting}

    await until(expired)


async def test_a_worker_that_is_gone_leaves_nothing_behind(broker: Broker) -> None:
    gone, here = worker(), worker()
    await broker.heartbeat(gone, 0.001)

    async def alone() -> bool:
        await broker.heartbeat(here, 60)
        return await raw(broker, "ZCARD", WORKERS) == 1

    await until(alone)


async def test_the_incarnation_stands_while_nothing_is_lost(broker: Broker, other: Broker) -> None:
    first = await broker.incarnation()
    assert await other.incarnation() == first
    assert await broker.incarnation() == first


async def test_a_wipe_changes_the_incarnation_once(broker: Broker, other: Broker) -> None:
    before = await broker.incarnation()
    assert await other.is_marked()
    await raw(broker, "FLUSHDB")
    assert not await other.is_marked()
    after = await broker.incarnation()
    assert after != before
    assert await other.incarnation() == after


async def test_another_installation_is_another_incarnation(broker: Broker, redis_url: str) -> None:
    before = await broker.incarnation()
    async with connected(redis_url, installation="restored") as restored:
        after = await restored.incarnation()
        assert after != before
        assert await restored.incarnation() == after


async def test_a_server_that_evicts_is_refused_and_says_what_has_to_change(redis_server: ServerHandle) -> None:
    async with connected(redis_server.url) as admin:
        await raw(admin, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(BrokerUnfit, match="maxmemory-policy is allkeys-lru, but must be noeviction"):
            await admin.incarnation()  # looked at anew, though connected
        async with connected(redis_server.url) as broker:
            with pytest.raises(BrokerUnfit, match="noeviction"):
                await broker.ping()
            await raw(admin, "CONFIG", "SET", "maxmemory-policy", "noeviction")
            await until(lambda: broker.try_lock("a", 60))


@pytest.mark.parametrize(
    ("product", "version", "fit"),
    [
        ("redis", "7.0.15", True),
        ("redis", "6.2.14", False),
        ("redis", "8.2.1", True),
        ("valkey", "7.2.0", True),
        ("valkey", "9.1.2", True),
        ("valkey", "7.1.9-rc1", False),
    ],
)
def test_servers_without_functions_are_refused(product: str, version: str, fit: bool) -> None:
    lines = f"# Server\r\nredis_version:7.2.4\r\n{product}_version:{version}\r\nrun_id:abc\r\n"
    info = ServerInfo.parse([lines.encode(), b"# Memory\r\nmaxmemory_policy:noeviction\r\n"])
    assert info.run_id == "abc"
    if fit:
        info.check()
    else:
        with pytest.raises(BrokerUnfit, match=r"is older than 7\.[02]"):
            info.check()
