from __future__ import annotations

import time

import anyio
import anyio.to_thread
import msgspec

from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.store.database import Database
from scheduler.store.terms import Terms
from tests.support.recurring import QUICK, Scheduler, add, minute, recurring, scheduler
from tests.support.rows import IDS, add_worker, count
from tests.support.servers import ServerHandle
from tests.support.waiting import until

PATIENT = msgspec.structs.replace(QUICK, lock_ttl=5.0)  # where nothing waits for a term to end


async def epoch_of(database: Database) -> int:
    return (await Terms(database).read())[0].epoch


async def settled(first: Scheduler, second: Scheduler) -> tuple[Scheduler, Scheduler]:
    """Wait until exactly one leads; return (leader, standby)."""
    await until(lambda: first.leads != second.leads and "scheduler.term" in second.health.snapshot())
    return (first, second) if first.leads else (second, first)


async def test_of_two_schedulers_one_leads(database: Database, database_url: str, redis_url: str) -> None:
    async with (
        scheduler(database_url, redis_url, PATIENT) as first,
        scheduler(database_url, redis_url, PATIENT) as second,
    ):
        leader, standby = await settled(first, second)
        epoch = await epoch_of(database)
        renewal = (await Terms(database).read())[0].renewal
        await until(lambda: renewed(database, renewal + 3))
        assert (leader.leads, standby.leads) == (True, False)
        assert await epoch_of(database) == epoch


async def renewed(database: Database, renewal: int) -> bool:
    return (await Terms(database).read())[0].renewal >= renewal


async def test_a_planned_stop_hands_over_long_before_the_standby_would_look_again(
    database_url: str, redis_url: str
) -> None:
    slow = msgspec.structs.replace(QUICK, lock_ttl=600.0)  # a standby looks once a minute, unless it is called
    async with scheduler(database_url, redis_url, slow) as first, scheduler(database_url, redis_url, slow) as second:
        leader, standby = await settled(first, second)
        await until(lambda: standby.health.snapshot()["broker.subscriber"].ok)
        leader.stop.set()
        await until(lambda: standby.leads)


async def test_a_scheduler_that_vanishes_is_succeeded_after_its_ttl(
    database: Database, database_url: str, redis_url: str
) -> None:
    vanished = IDS.one()
    terms = Terms(database)
    await terms.take((await terms.read())[0], vanished, host="gone", pid=1)
    async with Broker.connect(redis_url, installation="test", name="gone", clock=SystemClock()) as broker:
        await broker.try_lock(str(vanished), 60.0)  # even if its lock in Redis stays for much longer
    began = time.monotonic()
    async with scheduler(database_url, redis_url) as successor:
        await until(lambda: successor.leads)
        assert time.monotonic() - began >= QUICK.lock_ttl


async def test_a_leader_whose_epoch_was_taken_steps_down_and_writes_nothing_more(
    database: Database, database_url: str, redis_url: str
) -> None:
    async with scheduler(database_url, redis_url, PATIENT) as leader:
        await until(lambda: leader.leads)
        terms = Terms(database)
        usurper = IDS.one()
        epoch = await terms.take((await terms.read())[0], usurper, host="other", pid=1)
        assert epoch is not None
        await until(lambda: not leader.leads)
        await add(database, recurring("due", next_fire_at=minute()))
        for _ in range(5):
            assert await terms.renew(epoch, usurper)
            assert await count(database, "fires") == 0
            assert not leader.leads
        await terms.release(epoch, usurper)
        await until(lambda: leader.leads)
        await until(lambda: fires(database))


async def test_what_was_said_in_a_term_ends_with_it(database_url: str, redis_url: str) -> None:
    async with scheduler(database_url, redis_url) as leader:
        await until(lambda: leader.health.snapshot().keys() >= {"leader.fire", "scheduler.history"})
        leader.stop.set()
        await leader.done.wait()
        assert not [name for name in leader.health.snapshot() if name.startswith(("leader.", "scheduler."))]


async def test_without_redis_one_of_two_leads_and_stopping_it_hands_over(
    database_url: str, redis_server: ServerHandle
) -> None:
    await anyio.to_thread.run_sync(redis_server.kill)
    url = redis_server.url
    async with scheduler(database_url, url) as first, scheduler(database_url, url) as second:
        leader, standby = await settled(first, second)
        leader.stop.set()
        await until(lambda: standby.leads)
        await leader.done.wait()


async def test_losing_redis_keeps_the_term(database: Database, database_url: str, redis_server: ServerHandle) -> None:
    async with scheduler(database_url, redis_server.url, PATIENT) as leader:
        await until(lambda: leader.leads)
        epoch = await epoch_of(database)
        await anyio.to_thread.run_sync(redis_server.kill)
        renewal = (await Terms(database).read())[0].renewal
        await until(lambda: renewed(database, renewal + 3))
        await anyio.to_thread.run_sync(redis_server.start)
        await until(lambda: renewed(database, renewal + 6))
        assert await epoch_of(database) == epoch
        assert leader.leads


async def test_a_leader_that_cannot_confirm_its_term_stops_leading_and_nobody_is_reaped_afterwards(
    postgres_server: ServerHandle, redis_url: str
) -> None:
    """The database hangs for longer than term and lease together; the workers could not renew either."""
    from scheduler.store import migrate  # noqa: PLC0415

    lease = 3.0
    setup = await Database.connect(postgres_server.url, name="setup")
    await migrate.up(setup)
    worker_id = await add_worker(setup, lease=lease)
    async with scheduler(postgres_server.url, redis_url) as leader:
        await until(lambda: leader.leads)
        postgres = postgres_server.pid
        await anyio.to_thread.run_sync(freeze_all, postgres)
        try:
            await until(lambda: not leader.leads)
            began = time.monotonic()
            await until(lambda: time.monotonic() - began > lease + QUICK.lock_ttl + 1)
        finally:
            await anyio.to_thread.run_sync(thaw_all, postgres)
        await until(lambda: leader.leads)
        async with setup.session() as connection:
            await connection.execute("UPDATE worker_leases SET renewal = renewal + 1")
            assert await connection.fetchval("SELECT state FROM workers WHERE id = $1", worker_id) == "live"
    await setup.close()


def freeze_all(postmaster: int) -> None:
    """Stop a server and all its backends, as a hanging disk or machine would."""
    import psutil  # noqa: PLC0415

    for process in [psutil.Process(postmaster), *psutil.Process(postmaster).children(recursive=True)]:
        process.suspend()


def thaw_all(postmaster: int) -> None:
    import psutil  # noqa: PLC0415

    for process in [*psutil.Process(postmaster).children(recursive=True), psutil.Process(postmaster)]:
        process.resume()


async def fires(database: Database) -> bool:
    return await count(database, "fires") > 0
