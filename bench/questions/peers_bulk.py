"""How many commands a second other systems run: the same pile of `/bin/true`, on the same machine in the same round.

Each peer runs on the same PostgreSQL and Valkey as this system, from the same wheels with the same durable settings, on
fresh data, with the workers that its documentation recommends for two cores (listed below with its version). It gets
the pile in the way that it recommends for piles; its function starts the command as its users would, with `subprocess`
or `asyncio`, and then appends a line to a file. The clock runs from the first submit to the last such line; every
piece must be there. This system's clock stops later, when every outcome is committed, and it keeps every command's
output, kills its whole tree at the end, and holds a lease on it, which none of the peers does: that counts against it.

Everything is held against the C loop of `spawn_limit`, best of 2 to 4 processes, measured in the same round. This
system runs with its default slots, and with 64 as `bulk_true` does.

A peer that could not be installed, did not do its work, or took longer than its time, is named with the reason instead
of a figure. `--peers` asks some of them only.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from bench import bodies
from bench.limits import NO_COMPILER, spawn_rates
from bench.model import Against, Sample
from bench.peers.attempts import attempt, describe, installed
from bench.peers.catalog import PEERS, Peer
from bench.peers.running import start_peer
from bench.question import Question

OURS = "this system"
_SLOTS = {OURS: None, f"{OURS}, 64 slots": 64}


class PeersBulk(Question):
    """Gives the same pile to each, one after the other."""

    name = "peers_bulk"
    title = "Peers, bulk: /bin/true"

    async def prepare(self, stack: AsyncExitStack) -> None:  # noqa: ARG002 - nothing to close
        """Make the peers' environments."""
        self._peers = await installed(self, PEERS)
        describe(self, self._peers)

    async def ask(self) -> list[Sample]:
        """Measure the limit, this system and every peer."""
        count = 200 if self.bench.quick else 2000
        limits = await spawn_rates(self.bench.programs, processes=(2, 3, 4), spawns=1000 if self.bench.quick else 4000)
        if limits is None:
            self.note(NO_COMPILER)
        rates = {}
        for name, slots in self.turned(list(_SLOTS.items())):
            rates[name] = await self._ours(count, slots)
        for peer in self.turned(self._peers):
            rate = await attempt(self, peer, lambda peer: self._rate(peer, count), patience=90 + count / 20)
            if rate is not None:
                rates[peer.name] = rate
        limit = Against("C loop, best of 2 to 4 processes", max(limits.values())) if limits else None
        names = [*_SLOTS, *(peer.name for peer in self._peers if peer.name in rates)]
        return [Sample(name=name, value=rates[name], unit="tasks/s", against=limit) for name in names]

    async def _ours(self, count: int, slots: int | None) -> float:
        async with self.bench.system(concurrency=slots) as system:
            await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * 100, 1000))
            await system.until_done(timeout=60)
            result = await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * count, 1000))
            seconds = await system.until_done(timeout=60 + count / 50) - result.began
            await system.expect_completed(100 + count)
        return count / seconds

    async def _rate(self, peer: Peer, count: int) -> float:
        async with start_peer(peer, self.bench.fresh_directory()) as running:
            began, *_ = await running.submit("many", count)
            lines = await running.until(count, patience=30 + count / 20)
        return count / (max(at for _, at in lines) - began)
