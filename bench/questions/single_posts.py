"""How many single submits a second are acknowledged, over 64 connections.

Every one is committed durably before it is answered. No worker runs, so that nothing but accepting is measured.

Held against a bare handler on the same libraries (hypercorn, starlette, msgspec), which decodes the same body into the
same type and answers with as many bytes, and does nothing else. Both are measured in the same round by the same load
generator, in turns of who comes first; the generator runs on the same two cores for both.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from bench import bodies
from bench.child import module, send
from bench.load import Job, Result
from bench.model import Against, Bound, Sample, percentile
from bench.question import Question
from bench.server import Server, start_server
from bench.system import Unfinished

CONNECTIONS = 64
_BODY = bodies.one(bodies.task())


class SinglePosts(Question):
    """Posts single tasks to a system without workers, and to the bare handler."""

    name = "single_posts"
    title = "Single submits: POST /api/tasks over 64 connections"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Keep the stack, for the bare handler that the first round starts."""
        self._stack = stack
        self._bare: Server | None = None

    async def ask(self) -> list[Sample]:
        """Measure both, on fresh data."""
        count = 2000 if self.bench.quick else 20_000
        async with self.bench.system(workers=0) as system:
            answer = (await system.post("/api/tasks", [_BODY], keep=True)).replies[0]
            bare = self._bare = self._bare or await self._start_bare(len(answer))
            results = {server: await _post(server, count) for server in self.turned((system.server, bare))}
            stored = await system.database.fetchval("SELECT count(*) FROM runs")
            ours, peer = results[system.server], results[bare]
        if stored != 1 + _warm_up(count) + count:
            raise Unfinished(f"{stored} runs are stored of {count} and a warm-up")
        return [
            Sample(
                name="acknowledged",
                value=count / ours.seconds,
                unit="tasks/s",
                against=Against("bare handler", count / peer.seconds),
                reach=Bound("ratio", least=0.6),
                margin=Bound("ratio", least=0.15),
            ),
            Sample(name="p50", value=percentile(ours.latencies, 0.5) * 1000, unit="ms", better="lower"),
            Sample(name="p99", value=percentile(ours.latencies, 0.99) * 1000, unit="ms", better="lower"),
            Sample(name="CPU per request, load generator", value=ours.cpu / count * 1e6, unit="µs", better="lower"),
        ]

    async def _start_bare(self, reply: int) -> Server:
        """Start the bare handler, answering with as many bytes as the system did."""
        self.note(f"a request has a body of {len(_BODY)} bytes, an answer one of {reply}")
        command = module("bench.bare", "--reply", str(reply))
        return await self._stack.enter_async_context(start_server(command, self.bench.work / "bare.log"))


def _warm_up(count: int) -> int:
    return count // 10


async def _post(server: Server, count: int) -> Result:
    job = Job(
        host=server.host,
        port=server.port,
        path="/api/tasks",
        bodies=[_BODY],
        count=_warm_up(count),
        connections=CONNECTIONS,
    )
    await send(job)  # warm-up
    return await send(msgspec.structs.replace(job, count=count))
