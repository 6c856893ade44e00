"""What becomes of work whose worker is killed: 100 pieces of `sleep 0.5`, and SIGKILL to every worker in the middle.

Set up as in `peers_bulk`. When the first ten pieces are done, every process of the workers is killed at once, commands
and all, and workers are started again as they were. Then the bench waits, five minutes at most (quick: 20 seconds), for
every piece to be done: how many were not, how many were done more than once, and when the last one was. A piece counts
as done when its function has said so, before the peer can have recorded it, so one that is done twice may be the fault
of the moment; one that is never done is lost, or waits for longer than anybody watched.

This system is asked the same in `recovery`, where every acknowledged run must complete or there is no figure.
"""

from __future__ import annotations

import signal
from collections import Counter

import anyio

from bench.model import Sample
from bench.peers.catalog import PEERS, Peer
from bench.peers.environments import NotInstalled, version_of
from bench.peers.running import PeerFailed, start_peer
from bench.question import Question
from scheduler.embedded.process import ServerFailed

_COUNT = 100
_BEFORE = 10


class PeersLoss(Question):
    """Kills the workers of each, one after the other."""

    name = "peers_loss"
    title = "Peers, loss: every worker killed in the middle of 100 tasks"

    async def ask(self) -> list[Sample]:
        """Kill the workers of every peer."""
        samples = []
        for peer in self.turned(PEERS):
            try:
                samples += await self._killed(peer)
            except (NotInstalled, PeerFailed, ServerFailed) as error:
                self.note(f"{peer.name} {version_of(peer)}: no figure: {error}")
        return samples

    async def _killed(self, peer: Peer) -> list[Sample]:
        patience = 20.0 if self.bench.quick else 300.0
        async with start_peer(peer, self.bench.fresh_directory(), command="/bin/sleep 0.5") as running:
            await running.submit("many", _COUNT)
            await running.until(_BEFORE, patience=60)
            await running.stop(signal.SIGKILL)
            begin = anyio.current_time()
            await running.serve()
            with anyio.move_on_after(patience):
                while len(dict(running.done.lines())) < _COUNT:  # noqa: ASYNC110 - other processes' doing
                    await anyio.sleep(0.1)
            seconds = anyio.current_time() - begin
            times = Counter(index for index, _ in running.done.lines())
        missing, twice = _COUNT - len(times), sum(n > 1 for n in times.values())
        return [
            Sample(name=f"{peer.name}, never done", value=missing, unit="tasks", better="lower"),
            Sample(name=f"{peer.name}, done more than once", value=twice, unit="tasks", better="lower"),
            Sample(name=f"{peer.name}, last one done after", value=seconds, unit="s", better="lower"),
        ]
