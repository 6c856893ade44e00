"""What is left of speed and latency without Valkey: workers then claim straight from PostgreSQL.

Two systems on fresh data with one worker each; the second is given the address of a Valkey that does not answer, from
its start on. Both run the same pile of `/bin/true`, submitted in batches over HTTP and timed from the first byte sent
until no run is live in PostgreSQL, and then some single tasks, 5 a second, each timed from sending until its own
process runs. Every run must stand `completed` by one attempt.

Held against the system with Valkey, in the same round.
"""

from __future__ import annotations

from bench import bodies
from bench.model import Against, Bound, Sample, percentile
from bench.question import Question
from bench.questions.submit_to_start import delays

BATCH = 1000
_RATE = 5.0


class RedisLess(Question):
    """Does the same work with Valkey and without."""

    name = "redis_less"
    title = "Without Valkey: throughput and latency from PostgreSQL alone"

    async def ask(self) -> list[Sample]:
        """Measure both, in turns of which comes first."""
        program = await self.bench.programs.build("stamp")
        command = [str(program)] if program else ["/bin/date", "+%s.%N"]
        found = {valkey: await self._measure(command, valkey=valkey) for valkey in self.turned((False, True))}
        (rate, started), (usual_rate, usual_started) = found[False], found[True]
        latencies = [
            Sample(
                name=f"submit to start, p{share:.0%}".removesuffix("%"),
                value=percentile(started, share),
                unit="ms",
                better="lower",
                against=Against("with Valkey", percentile(usual_started, share)),
            )
            for share in (0.5, 0.99)
        ]
        bulk = Sample(
            name="bulk /bin/true",
            value=rate,
            unit="tasks/s",
            against=Against("with Valkey", usual_rate),
            margin=Bound("ratio", least=0.05),
        )
        return [bulk, *latencies]

    async def _measure(self, command: list[str], *, valkey: bool) -> tuple[float, list[float]]:
        count, singles = (500, 10) if self.bench.quick else (5000, 50)
        async with self.bench.system(valkey=valkey) as system:
            await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * 50, BATCH))
            await system.until_done(timeout=60)
            result = await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * count, BATCH))
            rate = count / (await system.until_done(timeout=60 + count / 20) - result.began)
            await system.expect_completed(50 + count)
            body = bodies.one(bodies.task(command=command))
            result = await system.post("/api/tasks", [body], count=singles, rate=_RATE, connections=4, keep=True)
            await system.until_done(timeout=60)
            return rate, (await delays(system, result))["started"]
