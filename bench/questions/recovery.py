"""How long until work goes on: after everything was killed at once, and after one worker of two was.

Everything: `dts up` with PostgreSQL, Valkey, all roles and the running commands gets SIGKILL while it works off a pile
of `/bin/true`, and is started again on the same directory. The first figure runs from that start until it says that it
is ready, the second until the first outcome of an attempt that it began is committed: crash recovery of PostgreSQL, the
start of every role, and finding out what had been running. The third runs until every run that was acknowledged has
ended; each must stand `completed`.

One worker: two workers are busy with `sleep 0.2`; one of them, with its guard and its commands, gets SIGKILL. The
figure runs until a run that it had held is claimed again. What holds it back is the lease, which must run out where
nobody can tell that the worker is dead, unless the one started in its place can.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import psutil

from bench import bodies
from bench.model import Bound, Sample
from bench.question import Question
from bench.system import System, Unfinished

_PATIENCE = 90.0


class Recovery(Question):
    """Kills and waits."""

    name = "recovery"
    title = "Recovery: after everything was killed, and after a worker was"

    async def ask(self) -> list[Sample]:
        """Measure both, each on fresh data."""
        return [*await self._everything(), await self._worker()]

    async def _everything(self) -> list[Sample]:
        count = 1000 if self.bench.quick else 5000
        data = self.bench.fresh_directory()
        async with self.bench.system(data=data) as system:
            await system.post("/api/tasks/batch", bodies.batches([bodies.task()] * count, 1000))
            await _until(system, "SELECT count(*) > $1 FROM attempts WHERE outcome = 'completed'", count // 10)
            await system.server.kill()
        begin = anyio.current_time()
        async with self.bench.system(data=data) as system:
            ready = anyio.current_time()
            await _until(
                system,
                "SELECT EXISTS (SELECT FROM attempts WHERE outcome = 'completed'"
                " AND started_at > pg_postmaster_start_time())",
            )
            first = anyio.current_time()
            done = await system.until_done(timeout=_PATIENCE + count / 50)
            states = await system.states()
        if states != {"completed": count}:
            raise Unfinished(f"of {count} acknowledged runs: {states}")
        ends = {"ready": ready, "first outcome": first, f"all {count:,} ended": done}
        return [
            Sample(name=f"everything killed: start until {what}", value=end - begin, unit="s", better="lower")
            for what, end in ends.items()
        ]

    async def _worker(self) -> Sample:
        slots = 4
        count = 40 if self.bench.quick else 200
        async with self.bench.system(workers=2, concurrency=slots) as system:
            tasks = [bodies.task(command=["/bin/sleep", "0.2"])] * count
            await system.post("/api/tasks/batch", bodies.batches(tasks, 1000))
            await _until(system, "SELECT count(*) >= $1 FROM runs WHERE state = 'running'", 2 * slots)
            victims, worker = await _one_worker(system)
            begin = anyio.current_time()
            for victim in victims:
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
            held = await system.database.fetch("SELECT id FROM runs WHERE state = 'running' AND worker_id = $1", worker)
            if not held:
                raise Unfinished("the killed worker held nothing")
            await _until(
                system,
                "SELECT count(*) > 0 FROM runs WHERE id = ANY($1) AND attempt > 1 AND started_at IS NOT NULL"
                " AND (state = 'running' OR finished_at IS NOT NULL)",
                [row["id"] for row in held],
            )
            again = anyio.current_time()
            await system.until_done(timeout=_PATIENCE)
            states = await system.states()
            if states != {"completed": count}:
                raise Unfinished(f"of {count} acknowledged runs: {states}")
        return Sample(
            name="a worker killed: until a run of its is claimed again",
            value=again - begin,
            unit="s",
            better="lower",
            reach=Bound("value", most=30),
        )


async def _one_worker(system: System) -> tuple[list[psutil.Process], Any]:
    """Return the processes of one worker, its guard first, and its id."""
    members = system.processes.by_role()["worker"]
    pids = {process.pid for process in members}
    guard = next(process for process in members if process.ppid() not in pids)
    family = [guard, *guard.children(recursive=True)]
    worker = await system.database.fetchval(
        "SELECT id FROM workers WHERE state = 'live' AND pid = ANY($1)", [process.pid for process in family]
    )
    return family, worker


async def _until(system: System, condition: str, *arguments: Any) -> None:
    with anyio.move_on_after(_PATIENCE):
        while not await system.database.fetchval(condition, *arguments):  # noqa: ASYNC110 - another process's state
            await anyio.sleep(0.005)
        return
    raise Unfinished(f"never came true: {condition}; {await system.states()}")
