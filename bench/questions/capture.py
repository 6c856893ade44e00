"""What it costs to keep a command's output: 1 kB and 1 MB of it, end to end, beside commands that print nothing.

`cat` of a file of so many bytes, submitted in batches over HTTP and run by one worker process; the clock runs from the
first byte sent until no run is live in PostgreSQL. An output is read, kept in PostgreSQL and committed with everything
else; one of them is then fetched over HTTP and compared byte by byte with what was printed.

Held against `cat` of an empty file, in the same round on the same system: the same program loaded, nothing to keep.
"""

from __future__ import annotations

import urllib.request
from contextlib import AsyncExitStack

import anyio.to_thread

from bench import bodies
from bench.model import Against, Bound, Sample
from bench.question import Question
from bench.system import System, Unfinished

FULL_SIZES = {0: 4000, 1_000: 4000, 1_000_000: 300}
QUICK_SIZES = {0: 200, 1_000: 200, 1_000_000: 20}
"""Bytes printed → how many tasks."""

_LETTERS = b"the quick brown fox jumps over the lazy dog, and prints it\n"


class Capture(Question):
    """Runs commands that print, one size after the other."""

    name = "capture"
    title = "Output: commands that print 1 kB and 1 MB, end to end"

    async def prepare(self, stack: AsyncExitStack) -> None:
        """Write what is printed, and start one system for all rounds."""
        self._sizes = QUICK_SIZES if self.bench.quick else FULL_SIZES
        for size in self._sizes:
            path = self.bench.work / f"print-{size}"
            path.write_bytes((_LETTERS * (size // len(_LETTERS) + 1))[:size])
            path.chmod(0o644)
        self._system = await stack.enter_async_context(self.bench.system())
        await self._rate(self._system, 0, 50)

    async def ask(self) -> list[Sample]:
        """Measure every size."""
        rates = {
            size: await self._rate(self._system, size, self._sizes[size]) for size in self.turned(list(self._sizes))
        }
        nothing = Against("prints nothing", rates[0])
        samples = [
            Sample(
                name=f"{size:,} bytes",
                value=rates[size],
                unit="tasks/s",
                against=nothing,
                margin=Bound("ratio", least=0.2) if size == 1_000 else None,
            )
            for size in self._sizes
            if size
        ]
        most = max(self._sizes)
        return [*samples, Sample(name=f"kept of {most:,} bytes each", value=rates[most] * most / 1e6, unit="MB/s")]

    async def _rate(self, system: System, size: int, count: int) -> float:
        name = f"print-{size}"
        task = bodies.task(name, command=["/bin/cat", str(self.bench.work / name)])
        result = await system.post("/api/tasks/batch", bodies.batches([task] * count, 1000))
        seconds = await system.until_done(timeout=120) - result.began
        run = await system.database.fetchval(
            "SELECT runs.id::text FROM runs JOIN tasks ON tasks.id = runs.task_id"
            " WHERE tasks.name = $1 AND runs.state = 'completed' ORDER BY runs.id DESC LIMIT 1",
            name,
        )
        url = f"http://{system.server.host}:{system.server.port}/api/runs/{run}/logs"
        kept = await anyio.to_thread.run_sync(_fetch, url)
        if kept != (self.bench.work / name).read_bytes():
            raise Unfinished(f"{len(kept)} bytes are kept of the {size} that a run printed, or others")
        return count / seconds


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
    return body
