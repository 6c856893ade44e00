"""How much memory 10,000 open streams of events take on one API process.

Each client opens `GET /api/events/stream` and stays, reading what comes. The memory is the API process's own (USS) with
all of them open, after it has told every one of them of some changes. It is one that `dts up` has started again: the
first is a fork, and what it shares with its parent, which is most of the code, would not count as its own.

Held against a bare stream server: an ASGI application on hypercorn alone, which sends a head and one event and then
waits for the client to go. Both get the same clients, and both figures are of the whole process, so what our process
holds for everything else that it can do counts against us.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import psutil
from anyio.streams.text import TextReceiveStream

from bench import bodies
from bench.child import environment, module
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.server import start_server
from bench.system import System, Unfinished

_PATH = "/api/events/stream"
_PATIENCE = 120.0


class SseFanOut(Question):
    """Opens streams on a system and on the bare server."""

    name = "sse_fan_out"
    title = "Streams: memory of one API process with 10,000 clients"

    async def ask(self) -> list[Sample]:
        """Measure one after the other: each on fresh processes."""
        count = 200 if self.bench.quick else 10_000
        peer, ours = await self._bare(count), await self._ours(count)
        return [
            Sample(
                name=f"{count:,} open streams",
                value=ours[1],
                unit="MB",
                better="lower",
                against=Against("bare stream server", peer[1]),
                reach=Bound("ratio", most=1.3) if not self.bench.quick else None,
                margin=Bound("ratio", most=5.0),
            ),
            Sample(
                name="each stream",
                value=(ours[1] - ours[0]) * 1000 / count,
                unit="kB",
                better="lower",
                against=Against("bare stream server", (peer[1] - peer[0]) * 1000 / count),
            ),
        ]

    async def _bare(self, count: int) -> tuple[float, float]:
        command = module("bench.streams", "serve")
        async with start_server(command, self.bench.work / "streams.log") as server:
            before = _held(server.pid)
            async with _clients(server.host, server.port, count):
                return before, _held(server.pid)

    async def _ours(self, count: int) -> tuple[float, float]:
        async with self.bench.system(workers=0) as system:
            api = await self._executed(system)
            before = _held(api.pid)
            async with _clients(system.server.host, system.server.port, count):
                await system.post("/api/tasks", [bodies.one(bodies.task())], count=20)
                await anyio.sleep(2)  # a look, and what it found told to everybody
                return before, _held(api.pid)

    async def _executed(self, system: System) -> psutil.Process:
        """Kill the API, and return the one that takes its place once it answers. Raises Unfinished."""
        (fork,) = system.processes.by_role()["api"]
        fork.kill()
        with anyio.move_on_after(_PATIENCE):
            while True:
                for api in system.processes.by_role()["api"]:
                    if api.pid != fork.pid and _listens(api, system.server.port):
                        async with _clients(system.server.host, system.server.port, 1):
                            return api
                await anyio.sleep(0.1)
        raise Unfinished("no API has taken the place of the one that was killed")


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("inet")
    except psutil.NoSuchProcess:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _held(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss / 1e6)


@asynccontextmanager
async def _clients(host: str, port: int, count: int) -> AsyncIterator[None]:
    """Keep `count` streams open. Raises Unfinished if one could not be opened, or ended."""
    command = module("bench.streams", "stay", host, str(port), _PATH, str(count))
    async with await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        said = ""
        with anyio.move_on_after(_PATIENCE):
            async for text in TextReceiveStream(process.stdout):
                said += text
                if "\n" in said:
                    break
        if said.strip() != f"open {count}":
            process.kill()
            raise Unfinished(f"the clients could not open their streams: {said!r}")
        yield
        if process.returncode is not None:
            raise Unfinished("a stream ended while it was watched")
        await process.stdin.aclose()
        await process.wait()
