"""How long nothing is promoted when the leading scheduler goes away: killed, and asked to stop.

`dts up` with a second scheduler standing by on the same servers, both with the default time after which a silent leader
loses its lead. One-off tasks fall due every 20 milliseconds; what is due is queued by the leader alone. The leader, as
`/health/deep` names it, gets SIGKILL (its lead has to run out) or SIGTERM (it gives it up). The figure is the longest
time that any task was queued late afterwards, by PostgreSQL's own stamps, and every task must have been queued.

Held against the worst lateness before the leader went, in the same round.
"""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta

import anyio
import anyio.to_thread
import msgspec

from bench import bodies
from bench.child import environment, module
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.system import System, Unfinished

_EVERY = 0.02
_LEAD = 2.0
_STEADY = 2.0
_AFTER = 8.0
"""Seconds: until the first task is due, of steady work, and of tasks due after the leader went."""

_LATE = """
SELECT max(extract(epoch FROM queued_at - run_at)) FILTER (WHERE run_at < $1)::float8 AS before,
       max(extract(epoch FROM queued_at - run_at)) FILTER (WHERE run_at >= $1)::float8 AS after,
       count(*) FILTER (WHERE queued_at IS NULL) AS waiting
FROM runs WHERE run_at >= $2
"""


class _Leader(msgspec.Struct):
    pid: int
    epoch: int


class _Deep(msgspec.Struct):
    leader: _Leader | None = None


class Failover(Question):
    """Takes the leader away in two ways."""

    name = "failover"
    title = "Failover: how late work is promoted when the leader goes"

    async def ask(self) -> list[Sample]:
        """Measure both ways, each on a fresh system."""
        samples = []
        for label, number in self.turned((("killed", signal.SIGKILL), ("asked to stop", signal.SIGTERM))):
            async with self.bench.system(workers=0) as system:
                standby = module(
                    "scheduler", "scheduler", "--database-url", system.database_url, "--redis-url", system.redis_url
                )
                with (self.bench.work / "standby.log").open("ab") as log:
                    process = await anyio.open_process(
                        standby, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
                    )
                try:
                    before, after = await _gap(system, number)
                finally:
                    if process.returncode is None:
                        process.terminate()
                    with anyio.CancelScope(shield=True):
                        await process.wait()
            samples.append(
                Sample(
                    name=f"leader {label}, longest wait",
                    value=after,
                    unit="s",
                    better="lower",
                    against=Against("longest wait while it led", before),
                    reach=Bound("value", most=10 if number == signal.SIGKILL else 1),
                )
            )
        return sorted(samples, key=lambda sample: sample.name, reverse=True)


async def _gap(system: System, number: signal.Signals) -> tuple[float, float]:
    """Return the longest lateness before and after the leader went, in seconds. Raises Unfinished."""
    with anyio.fail_after(30):
        while (leader := await _leader(system)) is None:  # noqa: ASYNC110 - another process's state
            await anyio.sleep(0.1)
    await anyio.sleep(1)  # for the standby to have looked around
    first = datetime.now(UTC) + timedelta(seconds=_LEAD)
    moments = [first + timedelta(seconds=n * _EVERY) for n in range(int((_STEADY + _AFTER) / _EVERY))]
    tasks = [bodies.task(run_at=moment.isoformat().replace("+00:00", "Z")) for moment in moments]
    await system.post("/api/tasks/batch", bodies.batches(tasks, 1000))
    gone = first + timedelta(seconds=_STEADY)
    await anyio.sleep((gone - datetime.now(UTC)).total_seconds())
    os.kill(leader.pid, number)
    with anyio.move_on_after(_AFTER + 30):
        while True:
            await anyio.sleep(0.5)
            row = await system.database.fetchrow(_LATE, gone, first - timedelta(seconds=_EVERY))
            if not row["waiting"]:
                break
    successor = await _leader(system)
    if row["waiting"] or successor is None or successor.epoch == leader.epoch:
        raise Unfinished(f"{row['waiting']} tasks were never queued; {leader} led, now {successor}")
    return row["before"], row["after"]


async def _leader(system: System) -> _Leader | None:
    url = f"http://{system.server.host}:{system.server.port}/health/deep"
    return msgspec.json.decode(await anyio.to_thread.run_sync(_get, url), type=_Deep).leader


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body
