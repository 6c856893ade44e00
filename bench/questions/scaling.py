"""How throughput grows with worker processes (1 to 8) and with slots (1 to 64).

Two kinds of work, submitted in batches over HTTP to fresh systems and timed from the first byte sent until no run is
live in PostgreSQL. `sleep 0.1` needs no processor: there the ideal is every slot busy all the time, which is what it is
held against, as long as starting that many processes is within the machine. `/bin/true` needs nothing else: there more
workers than cores only show what they cost, and the figure is held against one worker in the same round.
"""

from __future__ import annotations

from bench import bodies
from bench.model import Against, Sample
from bench.question import Question

WORKERS = (1, 2, 4, 8)
SLOTS = (1, 4, 16, 64)
_NAP = 0.1
_FILLS = 10
"""How often each slot is filled."""


class Scaling(Question):
    """Sweeps workers and slots."""

    name = "scaling"
    title = "Scaling: workers 1 to 8, slots 1 to 64"

    async def ask(self) -> list[Sample]:
        """Measure every number of workers with both kinds of work, then every number of slots of one worker."""
        quick = self.bench.quick
        workers, slots = ((1, 2), (4,)) if quick else (WORKERS, SLOTS)
        count = 300 if quick else 6000
        trues = {n: await self._rate(["/bin/true"], count, workers=n, slots=8) for n in self.turned(workers)}
        samples = [
            Sample(
                name=f"/bin/true, {n} workers of 8 slots",
                value=trues[n],
                unit="tasks/s",
                against=Against("one worker", trues[1]),
            )
            for n in workers
        ]
        shapes = [(n, 8) for n in workers] + [(1, n) for n in slots]
        for processes, each in shapes:
            places = processes * each
            rate = await self._rate(["/bin/sleep", str(_NAP)], places * _FILLS, workers=processes, slots=each)
            samples.append(
                Sample(
                    name=f"sleep {_NAP}, {processes} workers of {each} slots",
                    value=rate,
                    unit="naps/s",
                    against=Against("every slot always busy", places / _NAP),
                )
            )
        return samples

    async def _rate(self, command: list[str], count: int, *, workers: int, slots: int) -> float:
        async with self.bench.system(workers=workers, concurrency=slots) as system:
            warm_up = workers * slots
            await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * warm_up, 1000))
            await system.until_done(timeout=60)
            tasks = bodies.batches([bodies.task(command=command)] * count, 1000)
            result = await system.post("/api/tasks/batch", tasks)
            seconds = await system.until_done(timeout=60 + count / 5) - result.began
            await system.expect_completed(warm_up + count)
        return count / seconds
