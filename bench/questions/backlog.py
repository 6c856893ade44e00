"""Whether dispatch slows down beside 1,000,000 waiting and 1,000,000 finished runs (or `--pending` and `--history`).

Two systems with one worker each work off due runs of `/bin/true`: one has just enough of them in an otherwise empty
database, the other 1,000,000 of them beside 1,000,000 finished tasks with their attempts. The rows are written straight
into the tables (vacuumed and analysed, as they would be after growing one by one), the system is started on them, and
outcomes are counted by their own stamps over some seconds in the middle of the work. The ratio is the answer. Both are
measured in the same round, one after the other, and each only while the other is down.
"""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from bench import rows
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.system import Unfinished

FULL_ROWS, QUICK_ROWS = 1_000_000, 20_000


class Backlog(Question):
    """Works off a large backlog and a small one."""

    name = "backlog"
    title = "Flatness: dispatch beside a million waiting and a million finished runs"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Make the large database, once."""
        default = QUICK_ROWS if self.bench.quick else FULL_ROWS
        self._pending = default if self.bench.pending is None else self.bench.pending
        self._history = self._pending if self.bench.history is None else self.bench.history
        self._settling, self._seconds = (1.0, 1.5) if self.bench.quick else (2.0, 5.0)  # the first are not counted
        self._enough = int((self._settling + self._seconds) * 3500)  # more than any machine of this kind can run
        self._large = self.bench.fresh_directory()
        stack.callback(shutil.rmtree, self._large, ignore_errors=True)
        async with self.bench.system(workers=0, data=self._large) as system:
            await rows.add_finished(system.database, self._history)
            await rows.add_waiting(system.database, self._pending)
            await rows.settle(system.database)

    async def ask(self) -> list[Sample]:
        """Measure the small one and the large one, in turns of which comes first."""
        small = self.bench.fresh_directory()
        async with self.bench.system(workers=0, data=small) as system:
            await rows.add_waiting(system.database, self._enough)
            await rows.settle(system.database)
        rates = {data: await self._rate(data) for data in self.turned((small, self._large))}
        shutil.rmtree(small, ignore_errors=True)
        return [
            Sample(
                name=f"{self._pending:,} pending, {self._history:,} finished",
                value=rates[self._large],
                unit="tasks/s",
                against=Against("empty database", rates[small]),
                reach=Bound("ratio", least=0.9),
                margin=Bound("ratio", least=0.4),
            )
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
