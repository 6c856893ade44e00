"""How long a link of a chain takes: 40 tasks, each `/bin/true`, each depending on the one before.

The chain is one batch; the clock runs from the first byte sent until the last run's outcome is committed, as another
connection sees it, divided by 40. A link holds a commit, the next run's release, its dispatch, claim and spawn. One
worker, nothing else to do.

Held against one C loop that spawns `/bin/true` and waits for it, over and over: a chain with no scheduler in it.
"""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack

import anyio
import msgspec

from bench import bodies
from bench.limits import NO_COMPILER, spawn_rates
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.system import Unfinished

LINKS = 40


class _Item(msgspec.Struct):
    run_id: str


class _Items(msgspec.Struct):
    items: list[_Item]


class Chain(Question):
    """Runs chains one after another."""

    name = "chain"
    title = "Chain: 40 of /bin/true, each depending on the one before"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Start one system for all rounds and warm it up."""
        self._system = await stack.enter_async_context(self.bench.system())
        await self._run("warm-up")

    async def ask(self) -> list[Sample]:
        """Run several chains; the median is the round's figure."""
        chains = 2 if self.bench.quick else 5
        rates = await spawn_rates(self.bench.programs, processes=(1,), spawns=400)
        if rates is None:
            self.note(NO_COMPILER)
        seconds = statistics.median([await self._run(f"{self.round}-{chain}") for chain in range(chains)])
        return [
            Sample(
                name="a link",
                value=seconds / LINKS * 1000,
                unit="ms",
                better="lower",
                against=Against("C loop, one process", 1000 / rates[1]) if rates else None,
                reach=Bound("value", most=12),
                margin=Bound("ratio", most=50),
            )
        ]

    async def _run(self, name: str) -> float:
        """Run one chain and return its seconds."""
        tasks = [
            bodies.task(f"{name}-{n}", depends_on=[{"task": f"{name}-{n - 1}"}]) if n else bodies.task(f"{name}-0")
            for n in range(LINKS)
        ]
        result = await self._system.post("/api/tasks/batch", bodies.batches(tasks, LINKS), keep=True)
        last = msgspec.json.decode(result.replies[0], type=_Items).items[-1].run_id
        with anyio.move_on_after(30):
            while True:
                state = await self._system.database.fetchval("SELECT state FROM runs WHERE id = $1", last)
                if state == "completed":
                    return anyio.current_time() - result.began
                await anyio.sleep(0.001)
        raise Unfinished(f"the chain's last run stands {state}; {await self._system.states()}")
