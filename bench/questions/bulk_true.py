"""How many commands a second the whole system runs, from the first submit to the last outcome committed.

One `dts up` with one worker process on fresh data. `/bin/true` tasks are submitted in batches of 1,000 over HTTP; the
clock runs from the first byte sent until no run is live in PostgreSQL, as another connection sees it. Durable
(`fsync`, `synchronous_commit` and `full_page_writes` are checked in the running server); every run must stand
`completed`, with exactly one attempt, or there is no figure. Swept over the worker's slots.

Held against the C spawn loop of `spawn_limit`, best of 2 to 4 processes, measured in the same round: both cores do
nothing else then, while here HTTP, PostgreSQL, Valkey, scheduler and worker share them with the commands. What each of
them used per task is listed; the load generator's own share is listed too and not subtracted.
"""

from __future__ import annotations

from bench import bodies
from bench.limits import NO_COMPILER, spawn_rates
from bench.model import Against, Bound, Sample
from bench.processes import difference
from bench.question import Question

FULL_SWEEP = (4, None, 16, 32, 64)
"""Slots of the worker; None is what `dts up` chooses by itself."""

BATCH = 1000


class BulkTrue(Question):
    """Runs a pile of /bin/true, once per number of slots and round."""

    name = "bulk_true"
    title = "Bulk: /bin/true submitted over HTTP and run by one worker process"

    async def ask(self) -> list[Sample]:
        """Measure the limit, then every number of slots."""
        quick = self.bench.quick
        rates = await spawn_rates(self.bench.programs, processes=(2, 3, 4), spawns=1000 if quick else 4000)
        if rates is None:
            self.note(NO_COMPILER)
        limit = Against("C loop, best of 2 to 4 processes", max(rates.values())) if rates else None
        sweep: tuple[int | None, ...] = (None,) if quick else FULL_SWEEP
        samples = []
        for slots in self.turned(sweep):
            samples += await self._measure(slots, 1000 if quick else 10_000, limit)
        return sorted(samples, key=lambda sample: sample.unit != "tasks/s")

    async def _measure(self, slots: int | None, count: int, limit: Against | None) -> list[Sample]:
        warm_up, tasks = count // 10, bodies.batches([bodies.task()] * count, BATCH)
        async with self.bench.system(concurrency=slots) as system:
            await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * warm_up, BATCH))
            await system.until_done(timeout=60)
            if slots is None:
                self.note(f"default slots: {await system.database.fetchval('SELECT max(slots) FROM workers')}")
            syncs, used = await system.wal_syncs(), system.processes.cpu()
            result = await system.post("/api/tasks/batch", tasks)
            seconds = await system.until_done(timeout=60 + count / 50) - result.began
            spent = difference(used, system.processes.cpu())
            await system.expect_completed(warm_up + count)
            syncs = await system.wal_syncs() - syncs
        label = "default slots" if slots is None else f"{slots} slots"
        rate = Sample(
            name=label,
            value=count / seconds,
            unit="tasks/s",
            against=limit,
            reach=Bound("ratio", least=0.5),
            margin=Bound("ratio", least=0.1),
        )
        if slots is not None:
            return [rate]
        spent["load generator"] = result.cpu
        budget = [
            Sample(name=f"CPU per task, {role}", value=cpu / count * 1e6, unit="µs", better="lower")
            for role, cpu in spent.items()
        ]
        syncing = Sample(
            name="log forced to disk", value=syncs / count * 1000, unit="syncs/1,000 tasks", better="neither"
        )
        return [rate, *budget, syncing]
