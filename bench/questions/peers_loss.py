"""What becomes of work whose worker is killed: 100 pieces of `sleep 0.5`, and SIGKILL to every worker in the middle.

Set up as in `peers_bulk`. When the first ten pieces are done, every process of the workers is killed at once, commands
and all, and workers are started again as they were (this system's supervisor does that by itself). Then the bench
waits, three minutes at most (quick: 20 seconds), for every piece to be done: how many were not, how many were done more
than once, and when the last one was. Meanwhile a little work goes on coming, a piece every two seconds, as it does
wherever a system is in use: some look for abandoned work only when there is new work.

A piece counts as done when its function (here: its command) has said so, before the system can have recorded it, so one
that is done twice may be the fault of the moment; one that is never done is lost, or waits for longer than anybody
watched.

Nothing here depends on the machine's speed, so all are asked at the same time, and once is enough.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import psutil

from bench import bodies
from bench.model import Sample
from bench.peers.attempts import attempt, describe, installed
from bench.peers.catalog import PEERS, Peer
from bench.peers.running import Done, start_peer
from bench.question import Question
from bench.questions.peers_bulk import OURS
from bench.system import System, Unfinished

_COUNT = 100
_BEFORE = 10
_STARTING_AT_ONCE = 2
_SLOTS = 16  # about as many as the peers have
_TRICKLE = 0.5  # pieces a second that go on coming; they bear numbers from _COUNT on


class PeersLoss(Question):
    """Kills the workers of each."""

    name = "peers_loss"
    title = "Peers, loss: every worker killed in the middle of 100 tasks"

    async def prepare(self, stack: AsyncExitStack) -> None:  # noqa: ARG002 - nothing to close
        """Make the peers' environments."""
        self._peers = await installed(self, PEERS)
        describe(self, self._peers)
        self._patience = 20.0 if self.bench.quick else 180.0
        self._starting = anyio.CapacityLimiter(_STARTING_AT_ONCE)

    async def ask(self) -> list[Sample]:
        """Kill the workers of this system, then those of every peer."""
        found = {OURS: await self._ours()}

        async def ask(peer: Peer) -> None:
            samples = await attempt(self, peer, self._killed, patience=2 * self._patience + 240)
            found[peer.name] = samples or []

        async with anyio.create_task_group() as group:
            for peer in self.turned(self._peers):
                group.start_soon(ask, peer, name=peer.name)
        return [sample for name in (OURS, *(peer.name for peer in self._peers)) for sample in found[name]]

    async def _ours(self) -> list[Sample]:
        data = self.bench.fresh_directory()
        path = data.with_name(data.name + ".done")
        path.touch()
        path.chmod(0o666)  # commands run as somebody without rights
        done = Done(path)
        script = f'sleep 0.5; echo "$0 $(date +%s.%N)" >> {shlex.quote(str(path))}'
        tasks = [bodies.task(command=["/bin/sh", "-c", script, str(n)]) for n in range(_COUNT)]
        async with self.bench.system(concurrency=_SLOTS, data=data) as system:
            await system.post("/api/tasks/batch", bodies.batches(tasks, _COUNT))
            with anyio.move_on_after(60):
                while done.count() < _BEFORE:  # noqa: ASYNC110 - other processes' doing
                    await anyio.sleep(0.05)
            _kill_worker(system)
            late = bodies.one(bodies.task(command=["/bin/sh", "-c", script, str(_COUNT)]))
            samples = await self._watched(
                OURS, done, lambda count: system.post("/api/tasks", [late], count=count, rate=_TRICKLE)
            )
            await system.until_done(timeout=60)
            states = await system.states()
        if set(states) != {"completed"} or states["completed"] < _COUNT:
            raise Unfinished(f"of {_COUNT} acknowledged runs and some more: {states}")
        return samples

    async def _killed(self, peer: Peer) -> list[Sample]:
        async with AsyncExitStack() as stack:
            async with self._starting:
                starting = start_peer(peer, self.bench.fresh_directory(), command="/bin/sleep 0.5")
                running = await stack.enter_async_context(starting)
            await running.submit("many", _COUNT)
            await running.until(_BEFORE, patience=60)
            await running.kill()
            begin = anyio.current_time()
            await running.serve()
            return await self._watched(
                peer.name, running.done, lambda count: running.submit("rate", count, _TRICKLE, first=_COUNT), begin
            )

    async def _watched(
        self, name: str, done: Done, trickle: Callable[[int], Coroutine[Any, Any, object]], begin: float | None = None
    ) -> list[Sample]:
        begin = anyio.current_time() if begin is None else begin
        last, times = begin, _times(done)
        async with anyio.create_task_group() as group:
            group.start_soon(trickle, int(self._patience * _TRICKLE), name="trickle")
            while len(times) < _COUNT and anyio.current_time() < begin + self._patience:
                await anyio.sleep(0.1)
                if len(now := _times(done)) > len(times):
                    last = anyio.current_time()
                times = now
            group.cancel_scope.cancel()
        twice = sum(n > 1 for n in times.values())
        return [
            Sample(name=f"{name}, never done", value=_COUNT - len(times), unit="tasks", better="lower"),
            Sample(name=f"{name}, done more than once", value=twice, unit="tasks", better="lower"),
            Sample(name=f"{name}, last one done after", value=last - begin, unit="s", better="lower"),
        ]


def _times(done: Done) -> Counter[int]:
    """Return how often each of the pieces has been done that were there before the kill."""
    return Counter(index for index, _ in done.lines() if index < _COUNT)


def _kill_worker(system: System) -> None:
    """Kill the guard, the worker and every command: nobody is left to stop anything in an orderly way."""
    guard, *members = system.processes.by_role()["worker"]  # parents come before their children
    for process in [guard, *members]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
