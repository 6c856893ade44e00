"""Whether urgent work waits behind a million runs that are not.

Two systems with one worker each: on one, 1,000,000 due runs of `/bin/true` wait at the default priority and the worker
is busy with them; the other has nothing else to do. Tasks of priority 9 are submitted to each at 10 a second. The
figure is the time from sending one until its own process runs, as that process itself reads the clock.

Held against the idle system in the same round. A busy system has no free slot and no free core, so the urgent run waits
for one command to end and for its share of the machine: that is the ratio. It must not wait for anything else.
"""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from bench import bodies, rows
from bench.model import Against, Bound, Sample, percentile
from bench.question import Question
from bench.questions.submit_to_start import delays
from bench.system import System, Unfinished

FULL_ROWS, QUICK_ROWS = 1_000_000, 20_000
_RATE = 10.0
_PATIENCE = 60.0


class Priority(Question):
    """Submits urgent tasks to a busy system and to an idle one."""

    name = "priority"
    title = "Priority: an urgent run behind a million others"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Make the backlog, once; rounds use it up a little."""
        self._rows = QUICK_ROWS if self.bench.quick else FULL_ROWS
        program = await self.bench.programs.build("stamp")
        command = [str(program)] if program else ["/bin/date", "+%s.%N"]
        self._body = bodies.one(bodies.task("urgent", command=command, priority=9))
        self._busy, self._idle = self.bench.fresh_directory(), self.bench.fresh_directory()
        stack.callback(shutil.rmtree, self._busy, ignore_errors=True)
        async with self.bench.system(workers=0, data=self._busy) as system:
            await rows.add_waiting(system.database, self._rows)
            await rows.settle(system.database)

    async def ask(self) -> list[Sample]:
        """Measure both, each only while the other is down."""
        found = {data: await self._delays(data) for data in self.turned((self._busy, self._idle))}
        return [
            Sample(
                name=f"behind {self._rows:,}, p{share:.0%}".removesuffix("%"),
                value=percentile(found[self._busy], share),
                unit="ms",
                better="lower",
                against=Against("idle system", percentile(found[self._idle], share)),
                margin=Bound("ratio", most=200) if share == 0.5 else None,
            )
            for share in (0.5, 0.99)
        ]

    async def _delays(self, data: Path) -> list[float]:
        count = 20 if self.bench.quick else 100
        async with self.bench.system(data=data) as system:
            if data == self._busy:
                await _until_busy(system)
            else:
                await system.post("/api/tasks", [self._body], count=10, rate=_RATE)
            result = await system.post("/api/tasks", [self._body], count=count, rate=_RATE, connections=8, keep=True)
            with anyio.move_on_after(_PATIENCE):
                while await system.database.fetchval(_URGENT_LEFT):  # noqa: ASYNC110 - another process's state
                    await anyio.sleep(0.05)
            if data == self._busy and not await system.any_run("queued"):
                raise Unfinished("the backlog was worked off before the urgent runs: make it larger")
            return (await delays(system, result))["started"]


_URGENT_LEFT = "SELECT count(*) FROM runs WHERE state IN ('pending', 'queued', 'running') AND priority = 9"


async def _until_busy(system: System) -> None:
    with anyio.fail_after(_PATIENCE):
        while not await system.any_run("running"):  # noqa: ASYNC110 - another process's state
            await anyio.sleep(0.02)
