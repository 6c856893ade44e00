"""How long after one POST its process runs.

From just before the first byte of `POST /api/tasks` is sent until the command itself reads the clock: its first act is
to print the time, and that output is read from the run afterwards. So the figure holds the HTTP request, the durable
commit, dispatch, claim, spawn and the loading of the program; nothing that the system says of itself is taken on trust.
Both clocks are CLOCK_REALTIME of the same machine. The program is a few lines of C (`bench/native/stamp.c`), linked
statically where that is possible, or `/bin/date` where there is no compiler, which costs about a millisecond more.

Submits leave at even intervals over kept-alive connections, whether or not earlier ones were answered, at 1, 50 and
500 a second. Where the time goes is told by the run's own stamps: when PostgreSQL began its insert (accepted) and its
claim (claimed).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import msgspec

from bench import bodies
from bench.load import Result
from bench.model import Bound, Sample, percentile
from bench.question import Question
from bench.system import System, Unfinished

FULL_RATES = {1: 15, 50: 500, 500: 2500}
QUICK_RATES = {50: 50, 200: 100}
"""Submits per second → how many to make."""

REACH = {50: (5.0, 15.0)}
"""Submits per second → milliseconds for p50 and p99."""

_LATE = 0.05  # seconds that the generator may be behind before its answers are in doubt


class _Id(msgspec.Struct):
    id: str


class SubmitToStart(Question):
    """Submits at a steady rate to an otherwise idle system with one worker."""

    name = "submit_to_start"
    title = "Latency: one POST until its process runs"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Start one system for all rounds and warm it up."""
        program = await self.bench.programs.build("stamp")
        if program is None:
            self.note("no C compiler: /bin/date tells the time of its start, about a millisecond later than C would")
        self._body = bodies.one(bodies.task(command=[str(program)] if program else ["/bin/date", "+%s.%N"]))
        self._system = await stack.enter_async_context(self.bench.system())
        await self._system.post("/api/tasks", [self._body], count=50, rate=50, connections=8)
        await self._system.until_done(timeout=30)

    async def ask(self) -> list[Sample]:
        """Measure every rate."""
        samples = []
        for rate, count in (QUICK_RATES if self.bench.quick else FULL_RATES).items():
            result = await self._system.post(
                "/api/tasks", [self._body], count=count, rate=rate, connections=64, keep=True
            )
            if result.late > _LATE:
                self.note(f"at {rate}/s the generator was up to {result.late * 1000:.0f} ms late")
            await self._system.until_done(timeout=60)
            samples += _samples(rate, await delays(self._system, result))
        return samples


async def delays(system: System, result: Result, *, stamped: bool = True) -> dict[str, list[float]]:
    """Return milliseconds from sending to each stage, request by request. Raises Unfinished if any is not completed.

    Commands that did not print when they started are not `stamped`.
    """
    sent = {
        msgspec.json.decode(reply, type=_Id).id: at for reply, at in zip(result.replies, result.sent_at, strict=True)
    }
    rows: list[Any] = await system.database.fetch(
        "SELECT task_id::text, output_tail, extract(epoch FROM created_at)::float8 AS accepted,"
        " extract(epoch FROM started_at)::float8 AS claimed"
        " FROM runs WHERE task_id = ANY($1::text[]::uuid[]) AND state = 'completed'",
        list(sent),
    )
    if len(rows) != len(sent):
        raise Unfinished(f"{len(rows)} of {len(sent)} runs completed; {await system.states()}")
    found: dict[str, list[float]] = {"started": [], "claimed": [], "accepted": []}
    for row in rows:
        at = sent[row["task_id"]]
        if stamped:
            found["started"].append((float(row["output_tail"]) - at) * 1000)
        found["claimed"].append((row["claimed"] - at) * 1000)
        found["accepted"].append((row["accepted"] - at) * 1000)
    return found


def _samples(rate: int, found: dict[str, list[float]]) -> list[Sample]:
    most = REACH.get(rate, (None, None))
    started = [
        Sample(
            name=f"{rate}/s, started, p{share:.0%}".removesuffix("%"),
            value=percentile(found["started"], share),
            unit="ms",
            better="lower",
            reach=None if bound is None else Bound("value", most=bound),
        )
        for share, bound in zip((0.5, 0.99), most, strict=True)
    ]
    stages = [
        Sample(name=f"{rate}/s, {stage}, p50", value=percentile(found[stage], 0.5), unit="ms", better="lower")
        for stage in ("accepted", "claimed")
    ]
    return started + stages
