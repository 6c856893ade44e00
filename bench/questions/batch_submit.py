"""How many tasks a second `POST /api/tasks/batch` acknowledges, 10,000 in one request.

One connection sends one batch after another; a batch is acknowledged when it is committed, all of it in one
transaction. No worker runs, so that nothing but accepting is measured; the tasks wait as they would at a busy site.

Held against what the same PostgreSQL takes in the same round when a single statement inserts as many rows of an id and
a JSON body into a table with nothing but a primary key: no HTTP, no validation, no second table, no other index.
"""

from __future__ import annotations

from bench import bodies
from bench.limits import insert_rate
from bench.model import Against, Bound, Sample
from bench.question import Question

SIZE = 10_000


class BatchSubmit(Question):
    """Posts full batches to a system without workers."""

    name = "batch_submit"
    title = "Batch submit: POST /api/tasks/batch of 10,000"

    async def ask(self) -> list[Sample]:
        """Post to fresh data; the limit is measured before the batches, then after them, in turn."""
        count = 1 if self.bench.quick else 5
        batch = bodies.batches([bodies.task()] * SIZE, SIZE)
        async with self.bench.system(workers=0) as system:
            await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * 1000, 1000))
            await insert_rate(system.database, rows=SIZE)
            limit = await insert_rate(system.database, rows=SIZE) if self.round % 2 == 0 else None
            result = await system.post("/api/tasks/batch", batch, count=count)
            if limit is None:
                limit = await insert_rate(system.database, rows=SIZE)
        return [
            Sample(
                name="acknowledged",
                value=count * SIZE / result.seconds,
                unit="tasks/s",
                against=Against("one INSERT of as many rows", limit),
                reach=Bound("value", least=25_000),
                margin=Bound("ratio", least=0.03),
            ),
            Sample(name="slowest batch", value=max(result.latencies) * 1000, unit="ms", better="lower"),
        ]
