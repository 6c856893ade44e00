"""Whether 100,000 recurring tasks fire on time, and what keeping them costs.

Each has a cron expression of its own second of its own minute of every hour, so about 28 fall due each second, for as
long as one looks. One worker runs `/bin/true` for each. Lateness is taken from PostgreSQL's own stamps: from the moment
that a fire was planned for until its run is queued, and until it is claimed. Every fire planned within the window must
have its run, exactly once, or there is no figure. The CPU of the scheduler and of PostgreSQL over the window is listed,
in per cent of one core.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from bench import bodies
from bench.model import Sample, percentile
from bench.processes import difference
from bench.question import Question
from bench.system import Unfinished

_FIRED = """
SELECT extract(epoch FROM queued_at - scheduled_for)::float8 AS queued,
       extract(epoch FROM started_at - scheduled_for)::float8 AS claimed
FROM runs WHERE scheduled_for >= $1 AND scheduled_for < $2 AND started_at IS NOT NULL
"""


class SpreadSchedules(Question):
    """Watches many schedules fire for a while."""

    name = "spread_schedules"
    title = "Schedules: 100,000 spread over an hour, each fired on time"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Define them once."""
        quick = self.bench.quick
        self._count, self._period = (1_000, 60) if quick else (100_000, 3600)
        self._system = await stack.enter_async_context(self.bench.system())
        tasks = [bodies.task(f"spread-{n}", schedule=self._schedule(n)) for n in range(self._count)]
        begin = anyio.current_time()
        await self._system.post("/api/tasks/batch", bodies.batches(tasks, 1_000))
        self.note(f"defined at {self._count / (anyio.current_time() - begin):,.0f} a second")

    def _schedule(self, n: int) -> str:
        second = n % self._period
        return f"{second % 60} * * * * *" if self._period == 60 else f"{second % 60} {second // 60} * * * *"

    async def ask(self) -> list[Sample]:
        """Watch a window that begins at a whole second ahead."""
        seconds = 4 if self.bench.quick else 30
        begin = (datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=0) + timedelta(seconds=1)
        await anyio.sleep((begin - datetime.now(UTC)).total_seconds())
        used = self._system.processes.cpu()
        await anyio.sleep(seconds)
        spent = difference(used, self._system.processes.cpu())
        rows = await self._fired(begin, seconds)
        late = [
            Sample(
                name=f"planned until {stage}, p{share:.0%}".removesuffix("%"),
                value=percentile([row[stage] * 1000 for row in rows], share),
                unit="ms",
                better="lower",
            )
            for stage in ("queued", "claimed")
            for share in (0.5, 0.99)
        ]
        costs = [
            Sample(name=f"CPU, {role}", value=spent[role] / seconds * 100, unit="% of a core", better="lower")
            for role in ("scheduler", "postgres")
        ]
        fired = Sample(name="fires", value=len(rows) / seconds, unit="fires/s", better="neither")
        return [fired, *late, *costs]

    async def _fired(self, begin: datetime, seconds: int) -> list[Any]:
        """Return the runs of the window, each of which must be there."""
        first = int(begin.timestamp()) % self._period
        due = {(first + n) % self._period for n in range(seconds)}
        planned = sum(n % self._period in due for n in range(self._count))
        rows: list[Any] = []
        with anyio.move_on_after(20):
            while len(rows) < planned:
                await anyio.sleep(0.5)
                rows = await self._system.database.fetch(_FIRED, begin, begin + timedelta(seconds=seconds))
        if len(rows) != planned:
            raise Unfinished(f"of {planned} planned fires, {len(rows)} have a run that was claimed")
        return rows
