"""Many idle workers in one process: `python -m bench.fleet` registers them and keeps them alive as real ones would.

By the worker role's own statements and functions, each at the role's own pace: a lease renewal (a transaction), a
heartbeat and an offer of credit; with `--looks` also what an idle worker asks PostgreSQL now and then. Renewals of so
many workers share some connections here, and what goes to Valkey goes in batches, so the servers' part is a little less
than it would be; that each worker keeps connections open is not simulated at all.

Prints `ready` once all are registered, goes on until stdin ends, then prints a `Kept` as JSON.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import anyio
import anyio.to_thread
import msgspec
from anyio.streams.text import TextReceiveStream

from bench.child import environment, module
from bench.system import System, Unfinished
from scheduler.broker.keys import WORKERS, lane_keys
from scheduler.broker.library import Functions
from scheduler.broker.link import Link
from scheduler.domain.clock import SystemClock
from scheduler.domain.ids import IdSource
from scheduler.store.database import Database
from scheduler.store.dispatch import Dispatch
from scheduler.store.execution import Executions
from scheduler.store.registration import NewWorker, Registration

LEASE, RENEWAL, HEARTBEAT, OFFER, LOOK, SEARCH = 15.0, 3.0, 2.0, 1.0, 1.0, 10.0
"""Seconds: a lease; how often an idle worker renews, beats, offers, looks at lanes, and looks for forgotten runs."""

_QUEUE = "default"
_CONNECTIONS = 12
_TICK = 0.05
_CHUNK = 500
_PATIENCE = 120.0

Visit = Callable[[UUID], Awaitable[object]]


class Kept(msgspec.Struct):
    """What was done for all workers together.

    `longest_gap` is the most seconds between two renewals of one worker, `cpu` the seconds that simulating took.
    """

    seconds: float
    renewals: int = 0
    beats: int = 0
    offers: int = 0
    looks: int = 0
    longest_gap: float = 0.0
    cpu: float = 0.0


class Fleet:
    """The workers, and what they do."""

    def __init__(self, database: Database, link: Link, count: int) -> None:
        self._ids = IdSource(SystemClock())
        self._workers = self._ids.take(count)
        self._database = database
        self._registration = Registration(database)
        self._functions = Functions(link)
        self._renewed = dict.fromkeys(self._workers, 0.0)
        self._began = 0.0
        self.kept = Kept(0.0)

    async def register(self) -> None:
        """Add every worker."""
        for share in _shares(self._workers):
            async with anyio.create_task_group() as group:
                for worker in share:
                    group.start_soon(self._register, worker)
        self._began = time.monotonic()
        self._renewed = dict.fromkeys(self._workers, self._began)

    async def live(self, *, looks: bool) -> None:
        """Keep them alive until cancelled."""
        async with anyio.create_task_group() as group:
            for share in _shares(self._workers):
                group.start_soon(self._visit, share, RENEWAL, self._renew)
                if looks:
                    group.start_soon(self._visit, share, LOOK, self._look)
                    group.start_soon(self._visit, share, SEARCH, self._search)
            group.start_soon(self._beat)
            group.start_soon(self._offer)

    def result(self) -> Kept:
        """Return what was done since they were registered."""
        now = time.monotonic()
        self.kept.seconds = now - self._began
        self.kept.longest_gap = max(self.kept.longest_gap, *(now - at for at in self._renewed.values()))
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.kept.cpu = used.ru_utime + used.ru_stime
        return self.kept

    async def _register(self, worker: UUID) -> None:
        await self._registration.register(
            NewWorker(
                id=worker,
                name="simulated",
                host=socket.gethostname(),
                pid=os.getpid(),
                queues=[_QUEUE],
                executors=["process"],
                labels={},
                containment="none",
                slots=1,
                version="bench",
                lease=LEASE,
            )
        )

    async def _visit(self, workers: Sequence[UUID], period: float, visit: Visit) -> None:
        """Visit each worker once a period, evenly spread; late visits are made up for at once."""
        due = time.monotonic()
        while True:
            for worker in workers:
                due = max(due + period / len(workers), time.monotonic() - period)
                await anyio.sleep(max(0.0, due - time.monotonic()))
                await visit(worker)

    async def _renew(self, worker: UUID) -> None:
        if await self._registration.renew(worker, 0, []) is None:
            raise Unfinished(f"the simulated worker {worker} was taken for dead")
        now = time.monotonic()
        self.kept.longest_gap = max(self.kept.longest_gap, now - self._renewed[worker])
        self._renewed[worker] = now
        self.kept.renewals += 1

    async def _look(self, _: UUID) -> None:
        await Dispatch(self._database).lanes()
        self.kept.looks += 1

    async def _search(self, worker: UUID) -> None:
        executions = Executions(self._database, self._ids, worker, lanes_open=list, on_settled=_nothing)
        await executions.claim_waiting([], 1, SEARCH)
        await self._registration.live_workers()
        self.kept.looks += 2

    async def _beat(self) -> None:
        async def beat(workers: Sequence[UUID]) -> None:
            ttl = int(2.5 * HEARTBEAT * 1000)
            await self._functions.call(
                *(self._functions.command("heartbeat", (WORKERS,), str(worker), ttl) for worker in workers)
            )
            self.kept.beats += len(workers)

        await self._in_turn(HEARTBEAT, beat)

    async def _offer(self) -> None:
        async def offer(workers: Sequence[UUID]) -> None:
            ttl = int((OFFER + 5.0) * 1000)
            keys = lane_keys(_QUEUE)
            await self._functions.call(
                *(self._functions.command("offer", keys, str(worker), 1, ttl) for worker in workers)
            )
            self.kept.offers += len(workers)

        await self._in_turn(OFFER, offer)

    async def _in_turn(self, period: float, act: Callable[[Sequence[UUID]], Awaitable[None]]) -> None:
        """Act for as many workers as are due at each tick."""
        began, done, total = time.monotonic(), 0, len(self._workers)
        while True:
            due = int((time.monotonic() - began) / period * total) - done
            if due > total:  # a machine that cannot keep up: what was missed is over
                done += due - total
                due = total
            while due > 0:
                first = done % total
                some = self._workers[first : first + min(due, _CHUNK)]
                await act(some)
                done += len(some)
                due -= len(some)
            await anyio.sleep(_TICK)


def _shares(workers: Sequence[UUID]) -> list[Sequence[UUID]]:
    return [share for n in range(_CONNECTIONS) if (share := workers[n::_CONNECTIONS])]


async def _nothing(_: object) -> None:
    return


@asynccontextmanager
async def simulated_fleet(system: System, count: int, *, looks: bool) -> AsyncIterator[Callable[[], Awaitable[Kept]]]:
    """Keep `count` simulated workers beside whatever else serves `system`; calling what is yielded ends them."""
    options = ["--database-url", system.database_url, "--redis-url", system.redis_url, "--workers", str(count)]
    command = module("bench.fleet", *options, *(["--looks"] if looks else []))
    async with await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        said = TextReceiveStream(process.stdout)
        heard = ""
        with anyio.move_on_after(_PATIENCE), suppress(anyio.EndOfStream):
            while not heard.endswith("\n"):
                heard += await said.receive()
        if heard != "ready\n":
            process.kill()
            raise Unfinished("the simulated workers could not be registered")

        async def end() -> Kept:
            assert process.stdin is not None
            await process.stdin.aclose()
            with anyio.fail_after(_PATIENCE):
                text = "".join([part async for part in said])
                await process.wait()
            if process.returncode:
                raise Unfinished(f"the simulated workers failed with code {process.returncode}")
            return msgspec.json.decode(text, type=Kept)

        try:
            yield end
        finally:
            if process.returncode is None:
                process.kill()


async def _main(options: argparse.Namespace) -> None:
    clock = SystemClock()
    database = await Database.connect(options.database_url, name="bench-fleet", max_size=_CONNECTIONS)
    link = Link(options.redis_url, name="bench-fleet", clock=clock)
    fleet = Fleet(database, link, options.workers)
    await fleet.register()
    print("ready", flush=True)
    async with anyio.create_task_group() as group:

        async def live() -> None:
            await fleet.live(looks=options.looks)

        group.start_soon(live)
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        kept = fleet.result()
        group.cancel_scope.cancel()
    print(msgspec.json.encode(kept).decode(), flush=True)
    await link.close()
    await database.close()


def main() -> None:
    """Simulate until stdin ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--looks", action="store_true", help="also what idle workers ask PostgreSQL now and then")
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    anyio.run(_main, options)


if __name__ == "__main__":
    main()
