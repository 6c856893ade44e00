"""How long until all runs are queued when 10,000 tasks fall due in the same second.

Once as one-off tasks with the same `run_at`, once as recurring tasks with the same cron expression (each of which has
to be fired: its run made, its next fire computed and stored). They are submitted well ahead. The clock runs from the
very second until another connection sees all of them `queued` in PostgreSQL; it looks every 20 ms. No worker runs, or
the first would be done before the last is queued.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio

from bench import bodies
from bench.model import Bound, Sample
from bench.question import Question
from bench.system import System, Unfinished

_LEAD = 1.0  # seconds between the last acknowledgement and the storm, at least


class CronStorm(Question):
    """Lets a storm come, of either kind, over fresh data."""

    name = "cron_storm"
    title = "Cron storm: 10,000 tasks due in the same second"

    async def ask(self) -> list[Sample]:
        """Measure one storm of each kind."""
        count = 1000 if self.bench.quick else 10_000
        samples = []
        for kind in ("one-off", "recurring"):
            async with self.bench.system(workers=0) as system:
                seconds = await _storm(system, kind, count)
            samples.append(
                Sample(
                    name=f"{count:,} {kind}, all queued",
                    value=seconds,
                    unit="s",
                    better="lower",
                    reach=Bound("value", most=1.5),
                )
            )
        return samples


async def _storm(system: System, kind: str, count: int) -> float:
    # Recurring tasks are dearer to define: leave time for that before the second strikes.
    due = (datetime.now(UTC) + timedelta(seconds=_LEAD + count / 800)).replace(microsecond=0) + timedelta(seconds=1)
    if kind == "one-off":
        tasks = [bodies.task(run_at=due.strftime("%Y-%m-%dT%H:%M:%SZ"))] * count
    else:
        schedule = f"{due.second} {due.minute} {due.hour} * * *"
        tasks = [bodies.task(f"storm-{n}", schedule=schedule) for n in range(count)]
    await system.post("/api/tasks/batch", bodies.batches(tasks, 10_000))
    ahead = (due - datetime.now(UTC)).total_seconds()
    if ahead < _LEAD / 2:
        raise Unfinished(f"defining {count} {kind} tasks took so long that {ahead:.1f} s were left")
    await anyio.sleep(ahead)
    with anyio.move_on_after(60):
        while True:
            queued = await system.database.fetchval("SELECT count(*) FROM runs WHERE state = 'queued'")
            if queued == count:
                return (datetime.now(UTC) - due).total_seconds()
            await anyio.sleep(0.02)
    raise Unfinished(f"a minute after the storm of {count} {kind} tasks: {await system.states()}")
