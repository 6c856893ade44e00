"""How much may wait: when that is counted. What happens at the bound: test_probes, test_tenancy."""

from __future__ import annotations

from functools import partial

import anyio
import asyncpg
import pytest

from scheduler.api import ApiSettings
from scheduler.api.admission import Admission
from scheduler.api.tenancy import Tenancy
from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import Overloaded
from scheduler.metrics import Metrics
from scheduler.store.database import Database
from scheduler.store.namespaces import Namespaces
from scheduler.store.queues import Queues
from scheduler.wire.access import NewNamespace
from tests.support.locks import waiting_for_locks
from tests.support.rows import bench, new_task
from tests.support.waiting import until

_MANY = 8_000


class _Counted(Queues):
    counts = 0

    async def waiting(self, at_most: int) -> int:
        self.counts += 1
        return await super().waiting(at_most)


@pytest.mark.parametrize(("max_pending", "counts"), [(1_000_000, 0), (_MANY + 10, 1)])
async def test_what_waits_is_counted_only_where_it_may_have_reached_the_bound(
    database: Database, redis_url: str, clock: SystemClock, max_pending: int, counts: int
) -> None:
    async with bench(database) as b:
        await b.intake.create_batch([[new_task(straight=False) for _ in range(_MANY)]])
    queues, namespaces = _Counted(database), Namespaces(database)
    async with Broker.connect(redis_url, installation="test", name="test", clock=clock) as broker:
        settings = ApiSettings(max_pending=max_pending)
        admission = Admission(queues, namespaces, Tenancy(namespaces, broker), clock, settings, Metrics())
        await admission.step()
    assert queues.counts == counts


class _Clock(SystemClock):
    ahead = 0.0  # seconds that have passed beyond those that did

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class _Uncountable(Queues):
    counts = 0

    def __init__(self, database: Database, clock: _Clock) -> None:
        super().__init__(database)
        self._clock = clock

    async def waiting_at_most(self) -> int:
        return 10**9

    async def waiting(self, at_most: int) -> int:  # noqa: ARG002 - it is a Queues
        self.counts += 1
        self._clock.ahead += 0.5
        raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")


async def test_a_count_that_cannot_finish_is_not_repeated_at_once_and_hinders_no_namespace(
    database: Database, redis_url: str
) -> None:
    clock = _Clock()
    queues, namespaces = _Uncountable(database, clock), Namespaces(database)
    async with database.transaction() as executor:
        await namespaces.create(executor, NewNamespace(name="team", max_pending=10), "test")
    async with Broker.connect(redis_url, installation="test", name="test", clock=clock) as broker:
        tenancy = Tenancy(namespaces, broker)
        await tenancy.step()
        admission = Admission(queues, namespaces, tenancy, clock, ApiSettings(), Metrics())

        async def taken() -> bool:
            try:
                admission.admit("team", 1)
            except Overloaded:
                await admission.step()
                return False
            return True

        admission.admit("team", 10)
        with pytest.raises(asyncpg.QueryCanceledError):
            await taken()
        await until(taken, what="room is seen for more, since those have ended")
    assert queues.counts == 1


async def test_what_takes_longer_to_count_than_a_statement_may_take_is_counted(
    database_url: str, database: Database
) -> None:
    async with bench(database) as b:
        await b.intake.create_batch([[new_task(straight=False) for _ in range(3)]])
    impatient = await Database.connect(database_url, name="test", max_size=2, statement_timeout=0.2)
    counted: list[int] = []

    async def count() -> None:
        counted.append(await Queues(impatient).waiting(10))

    async with anyio.create_task_group() as group, database.transaction() as other:
        await other.target.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
        group.start_soon(count)
        await until(partial(waiting_for_locks, database), what="the count waits")
        with pytest.raises(asyncpg.QueryCanceledError):
            await impatient.fetchval("count_waiting", 10)
    await impatient.close()
    assert counted == [3]
