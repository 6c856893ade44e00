"""How many runs a second the system hands out and takes back when executing them costs nothing.

One `dts up` without workers, and workers of the bench's own (`bench/instant.py`): the worker role as it is, with
registration, lease, credit, claims and reports, but every command has ended well as soon as it starts. Tasks are
submitted in batches of 1,000 over HTTP; the clock runs from the first byte sent until no run is live in PostgreSQL, and
every run must stand `completed` by one attempt. With 1, 2 and 4 worker processes of 64 slots. What each component used
per task is listed, and is what `python -m bench.capacity` fits its costs to.

Held against PostgreSQL alone, in the same round: one connection that inserts as many narrow rows by 1,000 and changes
each of them twice by 64, durably. Any queue that keeps its tasks there has to do this at least.
"""

from __future__ import annotations

from bench import bodies, ledger
from bench.instant import instant_workers
from bench.limits import queue_rate
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.system import System

WORKERS = (1, 2, 4)
SLOTS = 64
BATCH = 1000


class DispatchOnly(Question):
    """Runs a pile of nothing."""

    name = "dispatch_only"
    title = "Dispatch only: claimed and finished through the real protocol, nothing executed"

    async def ask(self) -> list[Sample]:
        """Measure every number of workers."""
        quick = self.bench.quick
        count = 2000 if quick else 20_000
        samples = []
        for workers in self.turned((1,) if quick else WORKERS):
            async with self.bench.system(workers=0) as system:
                limit = Against("PostgreSQL alone", await queue_rate(system.database, rows=count))
                async with instant_workers(system, workers, slots=SLOTS):
                    samples += await _measure(system, workers, count, limit)
        return sorted(samples, key=lambda sample: (sample.unit != "tasks/s", sample.name))


async def _measure(system: System, workers: int, count: int, limit: Against) -> list[Sample]:
    shape = f"no-op, {workers} worker{'s' * (workers > 1)}"
    await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * (count // 10), BATCH))
    await system.until_done(timeout=60)
    before = await ledger.take(system)
    result = await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * count, BATCH))
    seconds = await system.until_done(timeout=60 + count / 50) - result.began
    after = await ledger.take(system)
    await system.expect_completed(count + count // 10)
    rate = Sample(
        name=f"{shape}: rate",
        value=count / seconds,
        unit="tasks/s",
        against=limit,
        margin=Bound("ratio", least=0.02),
    )
    requests = Sample(name=f"{shape}: requests", value=1 / BATCH, unit="requests/task", better="neither")
    return [rate, requests, *ledger.costs(shape, before, after, count)]
