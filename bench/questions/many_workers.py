"""What 10,000 workers cost when they only are there: leases, heartbeats, credit, and whether work still gets through.

One leader, one API, one worker that executes nothing (`bench/instant.py`), and simulated workers in a process of their
own (`bench/fleet.py`): 1,000 of them with all that an idle worker does, 10,000 of them with leases, heartbeats and
credit alone, since the machine also has to simulate them. Over some seconds, single tasks are submitted at 50 a second
to the lane that all of them serve. No worker may be taken for dead, and every run must stand `completed`, or there is
no figure. CPU is in per cent of one core. Connections are not simulated; PostgreSQL would have to take several of each.

Renewals are held against what the lease asks for (one every 3 seconds from each), the latency from submit until claim
against the same system with its one worker alone, in the same round.
"""

from __future__ import annotations

import anyio

from bench import bodies
from bench.fleet import RENEWAL, simulated_fleet
from bench.instant import instant_workers
from bench.model import Against, Bound, Sample, percentile
from bench.processes import difference
from bench.question import Question
from bench.questions.submit_to_start import delays
from bench.system import System, Unfinished

FULL_SIZES = {1_000: True, 10_000: False}
QUICK_SIZES = {100: True}
"""Simulated workers → whether they do all that an idle worker does."""

_GONE = """
WITH gone AS (
  UPDATE workers SET state = 'left', ended_at = dts_now(), end_reason = 'bench'
  WHERE version = 'bench' AND state = 'live' RETURNING id
)
DELETE FROM worker_leases USING gone WHERE worker_id = gone.id
"""

_RATE = 50.0
_SETTLING = 4.0
_ROLES = ("scheduler", "postgres", "valkey", "worker")


class ManyWorkers(Question):
    """Registers a fleet and watches."""

    name = "many_workers"
    title = "Fleet: 10,000 simulated workers and one leader"

    async def ask(self) -> list[Sample]:
        """Measure the worker alone, then with every size of fleet."""
        samples = []
        async with self.bench.system(workers=0) as system, instant_workers(system, 1, slots=16):
            await self._submit(system, 1.0)
            alone = await self._submit(system, self._seconds)
            for count, looks in (QUICK_SIZES if self.bench.quick else FULL_SIZES).items():
                samples += await self._measure(system, count, looks=looks, alone=alone)
        return samples

    @property
    def _seconds(self) -> float:
        return 2.0 if self.bench.quick else 15.0

    async def _measure(self, system: System, count: int, *, looks: bool, alone: list[float]) -> list[Sample]:
        label = f"{count:,} workers" + (", all that they do" if looks else "")
        async with simulated_fleet(system, count, looks=looks) as end:
            await anyio.sleep(1.0 if self.bench.quick else _SETTLING)
            before, began = system.processes.cpu(), anyio.current_time()
            with_them = await self._submit(system, self._seconds)
            used = difference(before, system.processes.cpu())
            seconds = anyio.current_time() - began
            dead = await system.database.fetchval("SELECT count(*) FROM workers WHERE state = 'dead'")
            kept = await end()
        await system.database.execute(_GONE)
        if dead:
            raise Unfinished(f"{dead} of {count} workers were taken for dead while they renewed")
        self.note(f"{label}: simulating them took {kept.cpu / kept.seconds:.0%} of a core")
        held = Against("what the lease asks for", count / RENEWAL)
        return [
            Sample(
                name=f"{label}: lease renewals",
                value=kept.renewals / kept.seconds,
                unit="renewals/s",
                against=held,
                reach=Bound("ratio", least=0.95),
                margin=Bound("ratio", least=0.5),
            ),
            Sample(
                name=f"{label}: longest time between two renewals",
                value=kept.longest_gap,
                unit="s",
                better="lower",
                reach=Bound("value", most=12.0),
            ),
            *(
                Sample(
                    name=f"{label}: submit until claimed, p{share:.0%}".removesuffix("%"),
                    value=percentile(with_them, share),
                    unit="ms",
                    better="lower",
                    against=Against("one worker alone", percentile(alone, share)),
                )
                for share in (0.5, 0.99)
            ),
            *(
                Sample(
                    name=f"{label}: CPU of {role}", value=used[role] / seconds * 100, unit="% of a core", better="lower"
                )
                for role in _ROLES
            ),
        ]

    async def _submit(self, system: System, seconds: float) -> list[float]:
        """Submit for so long and return milliseconds from sending until claimed, task by task."""
        body = bodies.one(bodies.task())
        result = await system.post(
            "/api/tasks", [body], count=int(seconds * _RATE), rate=_RATE, connections=16, keep=True
        )
        await system.until_done(timeout=60)
        return (await delays(system, result, stamped=False))["claimed"]
