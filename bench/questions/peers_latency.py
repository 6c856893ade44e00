"""How long after one submit its process runs, in other systems: 50 a second, on the same machine in the same round.

Set up as in `peers_bulk`. Single submits leave at even intervals; the command is the same little program that
`submit_to_start` runs, whose first act is to print the time, so that a figure ends in the process itself and not in the
function that is about to start it. The submitter is each peer's own client, and the moment is taken just before it is
called; for this system it is an HTTP request on a kept-alive connection. The first second does not count, for any of
them: some clients connect only when they are first called, and what is due meanwhile waits.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from bench import bodies
from bench.model import Against, Sample, percentile
from bench.peers.attempts import attempt, describe, installed
from bench.peers.catalog import PEERS, Peer
from bench.peers.running import start_peer
from bench.question import Question
from bench.questions.peers_bulk import OURS
from bench.questions.submit_to_start import delays

_RATE = 50.0
_SETTLING = int(_RATE)  # submits that do not count
_SHARES = (0.5, 0.99)


class PeersLatency(Question):
    """Submits to each at a steady rate, one after the other."""

    name = "peers_latency"
    title = "Peers, latency: one submit until its process runs, at 50 a second"

    async def prepare(self, stack: AsyncExitStack) -> None:  # noqa: ARG002 - nothing to close
        """Make the peers' environments."""
        self._peers = await installed(self, PEERS)
        describe(self, self._peers)

    async def ask(self) -> list[Sample]:
        """Measure this system and every peer."""
        count = 50 if self.bench.quick else 500
        program = await self.bench.programs.build("stamp")
        command = [str(program)] if program else ["/bin/date", "+%s.%N"]
        ours: list[float] = []
        theirs: dict[str, list[float]] = {}
        for peer in self.turned((None, *self._peers)):
            if peer is None:
                ours = await self._ours(command, count)
                continue
            found = await attempt(self, peer, lambda peer: self._delays(peer, command, count), patience=180)
            if found is not None:
                theirs[peer.name] = found
        own = {share: percentile(ours, share) for share in _SHARES}
        samples = [_sample(OURS, share, own[share], None) for share in _SHARES]
        return samples + [
            _sample(peer.name, share, percentile(found, share), Against(OURS, own[share]))
            for peer in self._peers
            if (found := theirs.get(peer.name)) is not None
            for share in _SHARES
        ]

    async def _ours(self, command: list[str], count: int) -> list[float]:
        body = bodies.one(bodies.task(command=command))
        async with self.bench.system() as system:
            await system.post("/api/tasks", [body], count=20, rate=_RATE, connections=8)
            await system.until_done(timeout=30)
            result = await system.post(
                "/api/tasks", [body], count=_SETTLING + count, rate=_RATE, connections=16, keep=True
            )
            await system.until_done(timeout=60)
            counted = msgspec.structs.replace(
                result, replies=result.replies[_SETTLING:], sent_at=result.sent_at[_SETTLING:]
            )
            return (await delays(system, counted))["started"]

    async def _delays(self, peer: Peer, command: list[str], count: int) -> list[float]:
        directory = self.bench.fresh_directory()
        async with start_peer(peer, directory, command=" ".join(command), prints=True) as running:
            _, *moments = await running.submit("rate", _SETTLING + count, _RATE)
            lines = await running.until(_SETTLING + count, patience=60)
        return [(at - moments[index]) * 1000 for index, at in lines if index >= _SETTLING]


def _sample(name: str, share: float, value: float, against: Against | None) -> Sample:
    label = f"{name}, p{share:.0%}".removesuffix("%")
    return Sample(name=label, value=value, unit="ms", better="lower", against=against)
