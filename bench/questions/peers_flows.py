"""How long whole flows take beside Airflow and Prefect: the work of Windmill's published benchmark.

A chain of 40 tasks, each of which computes fibo(10) after the one before has ended, and ten independent tasks that
compute fibo(33), in Python's slow recursive way. This system runs a Python program for each task, with everything that
starting an interpreter costs; Airflow does so too, in its own way; Prefect calls functions in the process of the flow
(wide: in threads, its default, which was quicker here than its pool of processes, each of which has to import Prefect
first), so that there is nothing for it to dispatch. Each runs on PostgreSQL with the same durable settings, and has run
both flows once before the clock starts.

This system's clock runs from the first byte sent until the last outcome is committed; Airflow's from the request that
triggers the run until the end in the run's record; Prefect's from the call of the flow until it returns. This system is
held against the same commands run by `xargs` and nothing else, the others against this system, in the same round.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio

from bench import bodies
from bench.model import Against, Sample
from bench.peers.attempts import attempt, describe, installed
from bench.peers.catalog import Peer
from bench.peers.environments import APPS
from bench.peers.orchestrators import ORCHESTRATORS
from bench.peers.running import start_peer
from bench.question import Question
from bench.questions.peers_bulk import OURS
from bench.system import System

_FULL = {"chain": (40, 10), "wide": (10, 33)}
_QUICK = {"chain": (4, 10), "wide": (4, 20)}
"""Kind of flow → number of its tasks, and what each computes."""


class PeersFlows(Question):
    """Runs both flows with each, one after the other."""

    name = "peers_flows"
    title = "Peers, flows: 40 x fibo(10) in a chain, 10 x fibo(33) side by side"

    async def prepare(self, stack: AsyncExitStack) -> None:  # noqa: ARG002 - nothing to close
        """Make the peers' environments."""
        self._peers = await installed(self, ORCHESTRATORS)
        describe(self, self._peers)
        # Tasks run as somebody without rights, who may not be able to reach the interpreter that runs this.
        self._python = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or sys.executable
        self._flows = _QUICK if self.bench.quick else _FULL
        program = self.bench.work / "fibo.py"
        shutil.copy(APPS / "fibo.py", program)
        program.chmod(0o644)
        self._program = program

    async def ask(self) -> list[Sample]:
        """Measure the bare commands, this system and both peers."""
        bare = {kind: await self._bare(kind) for kind in self._flows}
        async with self.bench.system() as system:
            for kind in self._flows:
                await self._ours(system, kind, f"warm-up-{kind}")
            ours = {kind: await self._ours(system, kind, f"measured-{kind}") for kind in self._flows}
        samples = [_sample(OURS, kind, ours[kind], Against("the same commands by xargs", bare[kind])) for kind in ours]
        for peer in self.turned(self._peers):
            found = await attempt(self, peer, self._theirs, patience=420)
            if found is not None:
                samples += [_sample(peer.name, kind, found[kind], Against(OURS, ours[kind])) for kind in found]
        return samples

    def _command(self, kind: str) -> list[str]:
        return [self._python, str(self._program), str(self._flows[kind][1])]

    async def _bare(self, kind: str) -> float:
        at_once = 1 if kind == "chain" else os.cpu_count()
        begin = anyio.current_time()
        arguments = "\n".join([str(self._flows[kind][1])] * self._flows[kind][0]).encode()
        await anyio.run_process(["xargs", "-n1", f"-P{at_once}", *self._command(kind)[:-1]], input=arguments)
        return anyio.current_time() - begin

    async def _ours(self, system: System, kind: str, prefix: str) -> float:
        tasks: Sequence[dict[str, Any]] = [
            bodies.task(
                f"{prefix}-{n}",
                self._command(kind),
                **({"depends_on": [{"task": f"{prefix}-{n - 1}"}]} if n and kind == "chain" else {}),
            )
            for n in range(self._flows[kind][0])
        ]
        before = (await system.states()).get("completed", 0)
        result = await system.post("/api/tasks/batch", bodies.batches(tasks, len(tasks)))
        seconds = await system.until_done(timeout=120) - result.began
        await system.expect_completed(before + len(tasks))
        return seconds

    async def _theirs(self, peer: Peer) -> dict[str, float]:
        sizes = " ".join(f"{count} {n}" for count, n in self._flows.values())
        found = {}
        async with start_peer(peer, self.bench.fresh_directory(), variables={"BENCH_FLOWS": sizes}) as running:
            for kind, arguments in self._flows.items():
                for _ in ("warm-up", "measured"):
                    began, ended = await running.submit(kind, *arguments)
                found[kind] = ended - began
        return found


def _sample(name: str, kind: str, value: float, against: Against) -> Sample:
    return Sample(name=f"{name}, {kind}", value=value, unit="s", better="lower", against=against)
