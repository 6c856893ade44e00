from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import pytest

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.health import Health
from scheduler.service import Wake
from tests.broker.support import connected, raw, worker
from tests.support.messages import heard
from tests.support.servers import ServerHandle
from tests.support.waiting import until


@pytest.fixture
async def listening(redis_url: str, health: Health) -> AsyncIterator[Broker]:
    async with connected(redis_url) as broker, anyio.create_task_group() as group:
        group.start_soon(broker.run, health, name="subscriber")
        yield broker
        group.cancel_scope.cancel()


@pytest.fixture
def channel() -> Iterator[str]:
    return iter([f"test:{worker()}"])


async def test_messages_arrive_in_order(listening: Broker, other: Broker) -> None:
    channel = f"logs:{worker()}"
    async with heard(listening, channel) as messages:
        for i in range(10):
            await other.publish(channel, str(i).encode())
        received = [await messages.receive() for _ in range(10)]
    assert received == [str(i).encode() for i in range(10)]


async def test_many_wake_ups_wake_once(listening: Broker, other: Broker) -> None:
    channel, wake, seen = f"wake:{worker()}", Wake(), []

    def take(payload: bytes) -> None:
        seen.append(payload)
        wake.set()

    listener = listening.listen(channel, take)
    await listener.active.wait()
    for _ in range(5):
        await other.publish(channel)
    await until(lambda: len(seen) == 5)
    assert await wake.wait(1)
    assert not await wake.wait(0)


async def test_a_channel_nobody_listens_to_any_more_is_unsubscribed(listening: Broker, other: Broker) -> None:
    channel = f"logs:{worker()}"

    async def subscribers() -> int:
        return int((await raw(other, "PUBSUB", "NUMSUB", f"dts:{channel}"))[1])

    async with heard(listening, channel), heard(listening, channel):
        assert await subscribers() == 1

    async def gone() -> bool:
        return await subscribers() == 0

    await until(gone)
    async with heard(listening, channel) as again:
        await other.publish(channel, b"x")
        assert await again.receive() == b"x"


async def test_after_a_restart_everything_is_subscribed_again_and_every_listener_told(
    redis_server: ServerHandle, own_broker: Broker, health: Health
) -> None:
    gaps, seen = [], []
    async with anyio.create_task_group() as group:
        group.start_soon(own_broker.run, health, name="subscriber")
        listener = own_broker.listen("wake:control", seen.append, lambda: gaps.append(1))
        await listener.active.wait()
        assert len(gaps) == 1
        await anyio.to_thread.run_sync(redis_server.kill)
        await until(lambda: not health.ok)
        await anyio.to_thread.run_sync(redis_server.start)
        await until(lambda: len(gaps) == 2)

        async def received() -> bool:
            await own_broker.publish("wake:control", b"x")
            return bool(seen)

        await until(received)
        await until(lambda: health.ok)
        group.cancel_scope.cancel()


async def test_whoever_is_subscribed_finds_out_that_redis_is_back_for_the_whole_process(
    redis_server: ServerHandle, own_broker: Broker, health: Health
) -> None:
    async def come_and_go() -> None:
        await own_broker.ping()
        await anyio.to_thread.run_sync(redis_server.kill)
        with pytest.raises(BrokerUnavailable):
            await own_broker.ping()
        await anyio.to_thread.run_sync(redis_server.start)
        await until(lambda: own_broker.available)  # though nobody calls

    returns: list[int] = []
    end = own_broker.on_return(lambda: returns.append(1))
    async with anyio.create_task_group() as group:
        group.start_soon(own_broker.run, health, name="subscriber")
        await come_and_go()
        assert len(returns) == 1
        end()
        await come_and_go()
        assert len(returns) == 1
        group.cancel_scope.cancel()


async def test_publishing_while_redis_is_away_says_so(own_broker: Broker, redis_server: ServerHandle) -> None:
    await own_broker.ping()
    await anyio.to_thread.run_sync(redis_server.kill)
    with pytest.raises(BrokerUnavailable):
        await own_broker.publish("wake:control")
