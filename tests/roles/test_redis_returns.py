"""When Redis is back, or was emptied, every role goes on by itself and at once: no loop sits out a pause of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from scheduler.api.offers import Offers
from scheduler.broker import BrokerUnavailable
from scheduler.broker.keys import stream_key
from scheduler.domain.clock import SystemClock
from scheduler.domain.run import Queued
from scheduler.service import Backoff
from scheduler.store.database import Database
from tests.broker.support import connected, drain, queued, raw
from tests.roles.api.support import Client, running_api
from tests.roles.test_mending import all_queued, all_ready, ready, reconciler, wipe
from tests.roles.worker_role_support import worker
from tests.support import until
from tests.support.lanes import lane_state
from tests.support.recurring import QUICK, lead, scheduler
from tests.support.rows import bench, new_task
from tests.support.servers import ServerHandle

RARELY = msgspec.structs.replace(QUICK, reconcile_every=3600.0, stale_after=3600.0)


@pytest.fixture
def _long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every loop that has failed pause for an hour, but for the one that looks whether Redis is back."""
    usual = Backoff.delay
    monkeypatch.setattr(Backoff, "delay", lambda self, failures: usual(self, failures) if self.cap <= 0.5 else 3600.0)


@asynccontextmanager
async def api_without_redis(database: Database, server: ServerHandle) -> AsyncIterator[Client]:
    """An API whose Redis has gone, and which has noticed."""
    async with running_api(database, server.url) as api:
        await api.context.broker.ping()
        await anyio.to_thread.run_sync(server.kill)
        api.context.offers.wake_control()
        await until(lambda: not api.context.broker.available)
        yield api


@pytest.mark.usefixtures("_long_pauses")
async def test_what_an_api_could_not_offer_is_offered_as_soon_as_redis_is_back(
    database: Database, redis_server: ServerHandle
) -> None:
    runs = queued(3)
    async with api_without_redis(database, redis_server) as api:
        api.context.offers.push(runs)
        await anyio.to_thread.run_sync(redis_server.start)
        await until(lambda: all_ready(api.context.broker, 3))
        assert await drain(api.context.broker) == [(run.run_id, 1) for run in runs]


async def test_an_api_keeps_a_bounded_part_of_what_it_cannot_offer(redis_server: ServerHandle) -> None:
    runs = queued(1500)
    async with connected(redis_server.url) as broker:
        offers = Offers(broker, SystemClock())
        await anyio.to_thread.run_sync(redis_server.kill)
        offers.push(runs)
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await offers.step()
        await anyio.to_thread.run_sync(redis_server.start)

        async def said() -> bool:
            return await offers.step() is None

        await until(said)
        assert await drain(broker) == [(run.run_id, 1) for run in runs[-1000:]]


async def test_what_redis_refuses_is_not_said_again(
    database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_api(database, redis_url) as api:
        broker, offers = api.context.broker, api.context.offers
        await raw(broker, "SET", stream_key("default"), "not a stream")
        refused = anyio.Event()
        push = broker.push

        async def noting(runs: Sequence[Queued]) -> dict[str, bool]:
            try:
                return await push(runs)
            except BrokerUnavailable:
                refused.set()
                raise

        monkeypatch.setattr(broker, "push", noting)
        offers.push(queued(1))
        with anyio.fail_after(10):
            await refused.wait()
        await broker.clear("default")
        later = queued(1)
        offers.push(later)
        await until(lambda: all_ready(broker, 1))
        assert await drain(broker) == [(later[0].run_id, 1)]


@pytest.mark.usefixtures("_long_pauses")
async def test_a_worker_reads_again_as_soon_as_redis_is_back(database: Database, redis_server: ServerHandle) -> None:
    async with (
        connected(redis_server.url) as broker,
        connected(redis_server.url) as other,
        worker(database, broker, concurrency=4),
    ):

        async def free() -> int:
            return (await lane_state(other)).credit

        await until(free)
        await anyio.to_thread.run_sync(redis_server.kill)
        await until(lambda: not broker.available)
        await anyio.to_thread.run_sync(redis_server.start)
        assert await until(free) == 4


async def test_a_leader_fills_the_lanes_as_soon_as_redis_is_back_though_it_lost_only_the_latest(
    database: Database, database_url: str, redis_server: ServerHandle
) -> None:
    async with bench(database) as made, scheduler(database_url, redis_server.url, RARELY) as leader:
        await until(lambda: leader.leads)
        await made.intake.create(new_task(straight=False))
        await until(lambda: all_ready(leader.broker, 1))
        await until(lambda: leader.broker.is_open(["default"]))
        await until(leader.broker.is_marked)
        await raw(leader.broker, "SAVE")  # its flags, its mark
        await anyio.to_thread.run_sync(redis_server.kill)
        for _ in range(2):
            await made.intake.create(new_task(straight=False))
        await until(lambda: all_queued(database, 3))
        await anyio.to_thread.run_sync(redis_server.start)
        await until(lambda: all_ready(leader.broker, 3))


async def test_a_leader_that_promotes_finds_out_that_redis_was_wiped(
    database: Database, database_url: str, redis_url: str
) -> None:
    async with bench(database) as made, scheduler(database_url, redis_url, RARELY) as leader:
        await until(lambda: leader.leads)
        for _ in range(3):
            await made.intake.create(new_task(straight=False))
        await until(lambda: all_ready(leader.broker, 3))
        await until(lambda: leader.broker.is_open(["default"]))
        await until(leader.broker.is_marked)
        await wipe(redis_url)
        await until(lambda: all_ready(leader.broker, 3))
        await until(lambda: leader.broker.is_open(["default"]))


async def test_a_reconciler_that_waited_for_redis_in_vain_looks_again_soon_and_leaves_nothing_out(
    database: Database, redis_server: ServerHandle
) -> None:
    settings: dict[str, Any] = {"stale_after": 3600.0, "reconcile_every": 2.0}
    async with bench(database) as made, connected(redis_server.url, installation="test") as broker:
        mender = reconciler(database, broker, await lead(database), **settings)
        await mender.step()
        redis_server.freeze()
        try:
            await made.intake.create(new_task())
            assert await mender.step() == 2.0  # though it took a second
        finally:
            redis_server.thaw()
        await until(broker.is_marked)
        await mender.step()
        assert await ready(broker) == 1
