"""How many commands a second other systems run: the same pile of `/bin/true`, on the same machine in the same round.

Each peer runs on the same PostgreSQL and Valkey as this system, from the same wheels with the same durable settings, on
fresh data, with the workers that its documentation recommends for two cores (listed below with its version). It gets
the pile in the way that it recommends for piles; its function starts the command as its users would, with `subprocess`
or `asyncio`, and then appends a line to a file. The clock runs from the first submit to the last such line; every
piece must be there. This system's clock stops later, when every outcome is committed, and it keeps every command's
output, kills its whole tree at the end, and holds a lease on it, which none of the peers does: that counts against it.

A peer that could not be installed, or did not do its work, is named with the reason instead of a figure.
"""

from __future__ import annotations

from bench import bodies
from bench.model import Against, Sample
from bench.peers.catalog import PEERS, Peer
from bench.peers.environments import NotInstalled, version_of
from bench.peers.running import PeerFailed, start_peer
from bench.question import Question
from scheduler.embedded.process import ServerFailed

OURS = "this system"


class PeersBulk(Question):
    """Gives the same pile to each, one after the other."""

    name = "peers_bulk"
    title = "Peers, bulk: /bin/true"

    async def ask(self) -> list[Sample]:
        """Measure this system and every peer."""
        count = 200 if self.bench.quick else 5000
        ours, rates = 0.0, {}
        for peer in self.turned((None, *PEERS)):
            if peer is None:
                ours = await self._ours(count)
                continue
            try:
                rates[peer.name] = await self._rate(peer, count)
            except (NotInstalled, PeerFailed, ServerFailed) as error:
                self.note(f"{peer.name} {version_of(peer)}: no figure: {error}")
        for peer in PEERS:
            self.note(f"{peer.name} {version_of(peer)}: {peer.settings}. {peer.durable}. {peer.loses}")
        fastest = Against("the fastest peer", max(rates.values())) if rates else None
        own = Sample(name=OURS, value=ours, unit="tasks/s", against=fastest)
        others = [
            Sample(name=peer.name, value=rates[peer.name], unit="tasks/s", against=Against(OURS, ours))
            for peer in PEERS
            if peer.name in rates
        ]
        return [own, *others]

    async def _ours(self, count: int) -> float:
        async with self.bench.system() as system:
            await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * 20, 1000))
            await system.until_done(timeout=60)
            result = await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * count, 1000))
            seconds = await system.until_done(timeout=60 + count / 50) - result.began
            await system.expect_completed(20 + count)
        return count / seconds

    async def _rate(self, peer: Peer, count: int) -> float:
        async with start_peer(peer, self.bench.fresh_directory()) as running:
            began, *_ = await running.submit("many", count)
            lines = await running.until(count, patience=30 + count / 20)
        return count / (max(at for _, at in lines) - began)
