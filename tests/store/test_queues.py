"""How many runs wait: counted, or bounded by what their indexes could hold, which costs next to nothing."""

from __future__ import annotations

import pytest

from scheduler.domain.task import Concurrency
from scheduler.store.database import Database
from scheduler.store.queues import Queues
from tests.support.rows import after, bench, new_task

pytestmark = pytest.mark.anyio

_MANY = 8_000  # more than indexes without an entry could hold, on the one page that each has


async def _add(database: Database, kind: str, count: int) -> None:
    async with bench(database) as b:
        if kind == "queued":
            tasks = [new_task(queue="q") for _ in range(count)]
        elif kind == "gated":
            tasks = [new_task(queue="q", straight=False, concurrency=Concurrency(key="k")) for _ in range(count)]
        else:
            tasks = [new_task(queue="q", straight=False)]
            edges = [after(tasks[0])] if kind == "blocked" else []
            tasks += [new_task(edges=edges, queue="q", straight=False) for _ in range(count - 1)]
        await b.intake.create_batch([tasks])


@pytest.mark.parametrize("kind", ["pending", "gated", "queued", "blocked"])
async def test_no_more_runs_wait_than_their_indexes_could_hold(database: Database, kind: str) -> None:
    await _add(database, kind, _MANY)
    queues = Queues(database)
    async with database.session() as connection:
        await connection.execute("REINDEX TABLE runs")  # as small as they can be
        bound = await queues.waiting_at_most()
        await connection.execute("TRUNCATE runs CASCADE")
    assert await queues.waiting(_MANY) == 0
    assert bound - await queues.waiting_at_most() >= _MANY
    assert bound < 3 * _MANY
