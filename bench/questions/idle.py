"""What each role holds and uses while there is nothing to do, and while 1,000,000 runs wait.

`dts up` with one worker, left alone for a moment and then watched for 30 seconds. Once with an empty database; once
with 1,000,000 due runs in a queue that no worker serves, so that the leader has a full backlog before its eyes and
still nothing can be done. Figures are sums over a role's processes (a worker is two, with its guard). RSS counts memory
shared with other processes in full, so it overstates: the roles are forked from one process. USS, what a process has
for itself, is listed beside it. CPU is in per cent of one core. PostgreSQL and Valkey are listed without a bound, and
without RSS: PostgreSQL's counts the same shared buffers once per process.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio

from bench import rows
from bench.model import Bound, Sample
from bench.processes import TASKS, difference
from bench.question import Question
from bench.system import System

FULL_ROWS, QUICK_ROWS = 1_000_000, 10_000
ROLES = ("api", "scheduler", "worker")


class Idle(Question):
    """Watches systems do nothing."""

    name = "idle"
    title = "Idle: memory and CPU of each role"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Make the systems; they are only watched one at a time, but idle all the time."""
        quick = self.bench.quick
        count = QUICK_ROWS if quick else FULL_ROWS
        waiting = await stack.enter_async_context(self.bench.system())
        await rows.add_waiting(waiting.database, count, queue="nobody-serves-this")
        await rows.settle(waiting.database)
        self._watched = [(waiting, f"{count:,} pending", 120.0)]
        if not quick:
            self._watched.append((await stack.enter_async_context(self.bench.system()), "idle", 80.0))
        await anyio.sleep(1 if quick else 30)  # until the leader has put its window into Valkey

    async def ask(self) -> list[Sample]:
        """Watch one after the other."""
        return [sample for watched in self._watched for sample in await self._watch(*watched)]

    async def _watch(self, system: System, label: str, most: float) -> list[Sample]:
        seconds = 2 if self.bench.quick else 30
        used = system.processes.cpu()
        await anyio.sleep(seconds)
        spent, held = difference(used, system.processes.cpu()), system.processes.memory()
        samples = []
        for role in sorted(held, key=lambda role: (role not in ROLES, role)):
            bounds = (most, 1) if role in ROLES else (None, None)
            if role in ROLES:
                rss = sum(memory.rss for memory in held[role])
                samples.append(_sample(f"{label}: {role}, RSS", rss, "MB", bounds[0]))
            uss = sum(memory.uss for memory in held[role])
            samples += [
                _sample(f"{label}: {role}, USS", uss, "MB", None),
                _sample(f"{label}: {role}, CPU", spent.get(role, 0.0) / seconds * 100, "% of a core", bounds[1]),
            ]
        assert not spent.get(TASKS), "something ran"
        return samples


def _sample(name: str, value: float, unit: str, most: float | None) -> Sample:
    reach = None if most is None else Bound("value", most=most)
    return Sample(name=name, value=value, unit=unit, better="lower", reach=reach)
