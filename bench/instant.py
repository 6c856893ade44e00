"""Workers that execute nothing: `python -m bench.instant` claims and finishes runs, and starts no process for them.

It is the worker role as it is, with its registration, lease, credit, claims and reports, but for the executor: that one
calls every command ended with exit code 0, at once or after `--nap` seconds. What is left is what dispatch costs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
import anyio.abc
import msgspec

from bench.child import environment, module
from bench.system import System
from scheduler import lifeline, process, telemetry
from scheduler.broker.broker import Broker
from scheduler.domain.clock import Clock, SystemClock
from scheduler.domain.task import TaskSpec
from scheduler.health import Health
from scheduler.service import Service
from scheduler.store.database import Database
from scheduler.worker import role
from scheduler.worker.capture import Capture
from scheduler.worker.launch import Launch
from scheduler.worker.machine import Machine
from scheduler.worker.settings import WorkerSettings

_PATIENCE = 30.0
_CONNECTIONS = 8  # as a worker has by default


class _Nothing:
    """A command that was never started, and ends well all the same."""

    exit_code = 0
    exit_signal = None
    out_of_memory = False
    printed_at = 0.0

    def __init__(self, nap: float) -> None:
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = loop.create_future()
        if nap:
            loop.call_later(nap, self.kill)
        else:
            self.kill()

    @property
    def running(self) -> bool:
        return not self.gone.done()

    def signal(self, number: int) -> None:  # noqa: ARG002 - what a real one would be sent
        self.kill()

    def kill(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class InstantExecutor:
    """Takes the place of the executor of processes."""

    name = "process"
    containment = "none"

    def __init__(self, nap: float) -> None:
        self._nap = nap

    async def start(self, launch: Launch, spec: TaskSpec, fence: int, capture: Capture) -> _Nothing:  # noqa: ARG002
        """Start nothing."""
        return _Nothing(self._nap)


def _machine(nap: float, settings: WorkerSettings, clock: Clock) -> Machine:
    executor = InstantExecutor(nap)
    return msgspec.structs.replace(Machine.prepare(settings, clock), executors={executor.name: executor})


@asynccontextmanager
async def instant_workers(system: System, count: int, *, slots: int, nap: float = 0.0) -> AsyncIterator[None]:
    """Let `count` such workers serve `system`, each a process of its own; they count as its workers."""
    live = "SELECT count(*) FROM workers WHERE state = 'live'"
    before = await system.database.fetchval(live)
    options = ["--database-url", system.database_url, "--redis-url", system.redis_url]
    command = module("bench.instant", *options, "--slots", str(slots), "--nap", str(nap))
    child = {**environment(), lifeline.VARIABLE: str(os.getpid())}
    async with AsyncExitStack() as stack:
        for _ in range(count):
            worker = await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=None, env=child)
            stack.push_async_callback(_end, worker)
            system.processes.adopt("worker", worker.pid)
        with anyio.fail_after(_PATIENCE):
            while await system.database.fetchval(live) < before + count:  # noqa: ASYNC110 - another process's state
                await anyio.sleep(0.02)
        yield


async def _end(worker: anyio.abc.Process) -> None:
    with anyio.CancelScope(shield=True):
        if worker.returncode is None:
            worker.terminate()
        with anyio.move_on_after(_PATIENCE):
            await worker.wait()
        if worker.returncode is None:
            worker.kill()
        await worker.aclose()


async def _run(options: argparse.Namespace, stop: anyio.Event) -> None:
    clock = SystemClock()
    health = Health(clock)
    async with AsyncExitStack() as stack:
        databases = []
        for size in (_CONNECTIONS, 1):
            databases.append(await Database.connect(options.database_url, name="bench-worker", max_size=size))
            stack.push_async_callback(databases[-1].close)
        installation = str(await databases[0].fetchval("identity"))
        broker = Broker.connect(options.redis_url, installation=installation, name="bench-worker", clock=clock)
        stack.push_async_callback(broker.close)
        async with Service("broker", health=health) as service:
            service.start("listen", broker.run, health)
            await role.run(
                database=databases[0],
                lease_database=databases[1],
                broker=broker,
                clock=clock,
                health=health,
                stop=stop,
                settings=WorkerSettings(concurrency=options.slots),
                prepare=partial(_machine, options.nap),
            )


def main() -> int:
    """Work until told to stop, or until whoever started this ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.instant", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--slots", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--nap", type=float, default=0.0, help="seconds that each command seems to take (%(default)g)")
    options = parser.parse_args()
    telemetry.configure(role="worker", level="warning", layout="json")
    lifeline.die_with_parent()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as the roles have it
    return process.run_process(partial(_run, options))


if __name__ == "__main__":
    sys.exit(main())
