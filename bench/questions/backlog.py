"""Whether dispatch slows down beside 1,000,000 waiting and 1,000,000 finished runs.

Systems with one worker each work off due runs of `/bin/true`: one has just enough of them in an otherwise empty
database, the others many of them, beside many finished tasks with their attempts. The rows are written straight into
the tables (vacuumed and analysed, as they would be after growing one by one), the system is started on them, and
outcomes are counted by their own stamps over some seconds in the middle of the work. The ratio is the answer. All are
measured in the same round, one after the other, and each only while the others are down.

`--pending` and `--history` choose another size; `--full-sizes` goes from 100,000 to 10,000,000 of each, which takes an
hour to write and some 60 GB.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from bench import rows
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.system import Unfinished

QUICK_SIZES = ((20_000, 20_000),)
SIZES = ((1_000_000, 1_000_000),)
FULL_SIZES = (
    (100_000, 0),
    (1_000_000, 0),
    (10_000_000, 0),
    (100_000, 1_000_000),
    (1_000_000, 1_000_000),
    (100_000, 10_000_000),
    (10_000_000, 10_000_000),
)
"""Runs that wait, and runs that have ended."""


class Backlog(Question):
    """Works off a large backlog and a small one."""

    name = "backlog"
    title = "Flatness: dispatch beside a million waiting and a million finished runs"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Make the large databases, once."""
        self._settling, self._seconds = (1.0, 1.5) if self.bench.quick else (2.0, 5.0)  # the first are not counted
        self._enough = int((self._settling + self._seconds) * 3500)  # more than any machine of this kind can run
        self._large = [(size, await self._filled(stack, *size)) for size in self._sizes()]

    def _sizes(self) -> Sequence[tuple[int, int]]:
        bench = self.bench
        usual = QUICK_SIZES if bench.quick else FULL_SIZES if bench.full_sizes else SIZES
        if bench.pending is None and bench.history is None:
            return usual
        pending = usual[0][0] if bench.pending is None else bench.pending
        return ((pending, pending if bench.history is None else bench.history),)

    async def _filled(self, stack: AsyncExitStack, pending: int, history: int) -> Path:
        data = self.bench.fresh_directory()
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        async with self.bench.system(workers=0, data=data) as system:
            await rows.add_finished(system.database, history)
            await rows.add_waiting(system.database, pending)
            await rows.settle(system.database)
        return data

    async def ask(self) -> list[Sample]:
        """Measure the small one and the large ones, in turns of which comes first."""
        small = self.bench.fresh_directory()
        async with self.bench.system(workers=0, data=small) as system:
            await rows.add_waiting(system.database, self._enough)
            await rows.settle(system.database)
        rates = {data: await self._rate(data) for data in self.turned([small, *(data for _, data in self._large)])}
        shutil.rmtree(small, ignore_errors=True)
        return [
            Sample(
                name=f"{pending:,} pending, {history:,} finished",
                value=rates[data],
                unit="tasks/s",
                against=Against("empty database", rates[small]),
                reach=Bound("ratio", least=0.9),
                margin=Bound("ratio", least=0.4),
            )
            for (pending, history), data in self._large
        ]

    async def _rate(self, data: Path) -> float:
        """Return outcomes per second while the system works off what is in `data`."""
        async with self.bench.system(data=data) as system:
            with anyio.fail_after(60):
                while not await system.any_run("running"):  # noqa: ASYNC110 - another process's state
                    await anyio.sleep(0.02)
            begin = await system.database.fetchval("SELECT dts_now() + make_interval(secs => $1)", self._settling)
            await anyio.sleep(self._settling + self._seconds + 0.2)
            if not await system.any_run("queued"):
                raise Unfinished("everything was done before the time was over: make the small backlog larger")
            ended = await system.database.fetchval(
                "SELECT count(*) FROM attempts WHERE outcome = 'completed'"
                " AND finished_at >= $1 AND finished_at < $1 + make_interval(secs => $2)",
                begin,
                self._seconds,
            )
        return float(ended) / self._seconds
