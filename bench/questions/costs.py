"""What one task costs, by component and by how it comes: the figures that plans for other machines rest on.

CPU of each role, transactions, forced writes and bytes of PostgreSQL's log, and bytes in and out of Valkey, all per
task, under load of several shapes; the memory of each role is listed as it stands right after.

- *idle*: nothing to do, one worker; what each role uses all the same.
- *singles*: 100 single POSTs a second, each a no-op: small batches everywhere.
- *naps*: commands that take half a second and no processor, at the most that 64 slots a worker allow, with 1, 2 and 4
  workers (`bench/instant.py`): the machine is not full, so this shows whether costs add up as workers are added.
- */bin/true*: real commands in batches, 64 slots: the command itself, and starting it.

No-ops at full speed are in `dispatch_only`. `python -m bench.capacity` fits its costs to what was measured with one
worker, predicts what the others should have come to, and sets both side by side.
"""

from __future__ import annotations

import anyio

from bench import bodies, ledger
from bench.instant import instant_workers
from bench.model import Sample
from bench.processes import difference
from bench.question import Question
from bench.system import System

SLOTS = 64
NAP = 0.5
BATCH = 1000
SINGLES = 100.0
ROLES = ("api", "scheduler", "worker", "postgres", "valkey")


class Costs(Question):
    """Takes the same readings under every shape of load."""

    name = "costs"
    title = "Costs of a task: CPU, log and memory of each component under load"

    async def ask(self) -> list[Sample]:
        """Measure every shape, each on a fresh system."""
        workers = (1,) if self.bench.quick else (1, 2, 4)
        samples = [*await self._idle(), *await self._singles()]
        for count in self.turned(workers):
            samples += await self._naps(count)
        return [*samples, *await self._true()]

    async def _idle(self) -> list[Sample]:
        seconds = 2 if self.bench.quick else 20
        async with self.bench.system(workers=0) as system, instant_workers(system, 1, slots=SLOTS):
            await anyio.sleep(2)
            before = system.processes.cpu()
            await anyio.sleep(seconds)
            used = difference(before, system.processes.cpu())
        return [
            Sample(name=f"idle: CPU of {role}", value=used[role] / seconds * 1000, unit="ms/s", better="lower")
            for role in ROLES
        ]

    async def _singles(self) -> list[Sample]:
        count = 100 if self.bench.quick else 1000
        body = bodies.one(bodies.task())
        async with self.bench.system(workers=0) as system, instant_workers(system, 1, slots=SLOTS):
            await system.post("/api/tasks", [body], count=50, rate=SINGLES, connections=8)
            await system.until_done(timeout=30)
            before = await ledger.take(system)
            result = await system.post("/api/tasks", [body], count=count, rate=SINGLES, connections=32)
            seconds = await system.until_done(timeout=60) - result.began
            after = await ledger.take(system)
        return _samples(f"singles at {SINGLES:.0f}/s, 1 worker", before, after, count, seconds, requests=1)

    async def _naps(self, workers: int) -> list[Sample]:
        count = int(workers * SLOTS / NAP * (2 if self.bench.quick else 12))
        async with self.bench.system(workers=0) as system, instant_workers(system, workers, slots=SLOTS, nap=NAP):
            return await _batches(f"naps, {workers} worker{'s' * (workers > 1)}", system, count, memory=False)

    async def _true(self) -> list[Sample]:
        async with self.bench.system(concurrency=SLOTS) as system:
            return await _batches("/bin/true, 1 worker", system, 1000 if self.bench.quick else 10_000, memory=True)


async def _batches(shape: str, system: System, count: int, *, memory: bool) -> list[Sample]:
    await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * SLOTS, BATCH))
    await system.until_done(timeout=60)
    before = await ledger.take(system)
    result = await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * count, BATCH))
    seconds = await system.until_done(timeout=60 + count / 20) - result.began
    held = system.processes.memory() if memory else {}
    after = await ledger.take(system)
    await system.expect_completed(count + SLOTS)
    private = [
        Sample(name=f"{shape}: memory of {role} (USS)", value=sum(m.uss for m in held[role]), unit="MB", better="lower")
        for role in ROLES
        if role in held
    ]
    return [*_samples(shape, before, after, count, seconds, requests=1 / BATCH), *private]


def _samples(
    shape: str, before: ledger.Reading, after: ledger.Reading, count: int, seconds: float, *, requests: float
) -> list[Sample]:
    return [
        Sample(name=f"{shape}: rate", value=count / seconds, unit="tasks/s", better="neither"),
        Sample(name=f"{shape}: requests", value=requests, unit="requests/task", better="neither"),
        *ledger.costs(shape, before, after, count),
    ]
