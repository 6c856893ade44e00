"""Whether dispatch slows down while somebody holds an old snapshot over 1,000,000 churned rows.

A forgotten transaction, or a long report, keeps PostgreSQL from removing what has died since. Every run dies three
times (pending, queued, running) before it rests, so the partial indexes over live states fill with entries of the dead,
which every scan from their beginning meets again. Two systems with one worker each work off due runs of `/bin/true`:
one in an otherwise empty database, the other after 1,000,000 runs have gone through all their states in the same lane,
under a snapshot that is older than all of them and is still held. Outcomes are counted over some seconds in the middle
of the work. The ratio of the rates is the answer; both are measured in the same round.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from bench import rows
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.system import System, Unfinished, look_into

FULL_ROWS, QUICK_ROWS = 1_000_000, 20_000


class OldSnapshot(Question):
    """Works off the same backlog with and without an old snapshot over churned rows."""

    name = "old_snapshot"
    title = "Old snapshot: dispatch over a million rows that cannot be vacuumed"

    async def ask(self) -> list[Sample]:
        """Measure both, in turns of which comes first."""
        count = QUICK_ROWS if self.bench.quick else FULL_ROWS
        rates = {churned: await self._rate(churned) for churned in self.turned((0, count))}
        return [
            Sample(
                name=f"snapshot held over {count:,} churned rows",
                value=rates[count],
                unit="tasks/s",
                against=Against("empty database", rates[0]),
                reach=Bound("ratio", least=0.8),
                margin=Bound("ratio", least=0.4),
            )
        ]

    async def _rate(self, churned: int) -> float:
        """Return outcomes per second while the system works off a backlog."""
        settling, seconds = (1.0, 1.5) if self.bench.quick else (2.0, 5.0)
        async with self.bench.system() as system, _old_snapshot(system, churned):
            await rows.add_churned(system.database, churned)
            await system.database.execute("ANALYZE runs")
            await rows.add_waiting(system.database, int((settling + seconds) * 3500))
            with anyio.fail_after(60):
                while not await system.any_run("running"):  # noqa: ASYNC110 - another process's state
                    await anyio.sleep(0.02)
            begin = await system.database.fetchval("SELECT dts_now() + make_interval(secs => $1)", settling)
            await anyio.sleep(settling + seconds + 0.2)
            if not (await system.any_run("queued") or await system.any_run("pending")):
                raise Unfinished("everything was done before the time was over: make the backlog larger")
            ended = await system.database.fetchval(
                "SELECT count(*) FROM attempts WHERE outcome = 'completed'"
                " AND finished_at >= $1 AND finished_at < $1 + make_interval(secs => $2)",
                begin,
                seconds,
            )
        return float(ended) / seconds


@asynccontextmanager
async def _old_snapshot(system: System, churned: int) -> AsyncIterator[None]:
    """Hold a snapshot of what is there now, if anything is to be churned under it."""
    if not churned:
        yield
        return
    other: Any = await look_into(system.data)
    try:
        async with other.transaction(isolation="repeatable_read"):
            await other.fetchval("SELECT count(*) FROM workers")
            yield
    finally:
        await other.close()
