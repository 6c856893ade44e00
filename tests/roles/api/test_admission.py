"""How much may wait: when that is counted. What happens at the bound: test_probes, test_tenancy."""

from __future__ import annotations

import pytest

from scheduler.api import ApiSettings
from scheduler.api.admission import Admission
from scheduler.api.tenancy import Tenancy
from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.metrics import Metrics
from scheduler.store.database import Database
from scheduler.store.namespaces import Namespaces
from scheduler.store.queues import Queues
from tests.support.rows import bench, new_task

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
