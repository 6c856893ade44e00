"""A peer at work: its servers, its workers, what they are given and what they have done."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import psutil

from bench.child import environment
from bench.peers.catalog import Peer
from bench.peers.environments import APPS, environment_of
from bench.peers.servers import start_servers

_WARM_UP = 20
_START = 30.0
_STOP = 5.0


class PeerFailed(Exception):
    """A peer did not do what it was given; the message ends with the end of its log."""


class Done:
    """Lines that the work has appended: `index moment`, from `start` on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.start = 0

    def lines(self) -> list[tuple[int, float]]:
        """Return everything since `start`, in the order in which it was done."""
        with self._path.open("rb") as file:
            file.seek(self.start)
            return [(int(i), float(at)) for i, at in (line.split() for line in file.read().splitlines())]

    def skip(self) -> None:
        """Forget everything up to now."""
        self.start = self._path.stat().st_size


class Running:
    """One peer with its workers. `command` is what a piece of work runs; `prints` if its output is the moment."""

    def __init__(self, peer: Peer, environ: dict[str, str], words: dict[str, str], log: Path) -> None:
        self._peer = peer
        self._environ = environ
        self._words = words
        self._log = log
        self._workers: list[anyio.abc.Process] = []
        self.done = Done(Path(environ["BENCH_DONE"]))

    def _filled(self, command: Sequence[str]) -> list[str]:
        return [word.format(**self._words) for word in command]

    async def setup(self) -> None:
        """Prepare fresh servers."""
        for command in self._peer.setup:
            await self._run(self._filled(command))

    async def serve(self) -> None:
        """Start the workers."""
        for copy in range(self._peer.copies):
            with self._log.open("ab") as log:
                self._workers.append(
                    await anyio.open_process(
                        self._filled(self._peer.serve),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=APPS,
                        env={**self._environ, "BENCH_COPY": str(copy)},
                        start_new_session=True,
                    )
                )

    async def submit(self, *arguments: object) -> list[float]:
        """Submit (see `apps/work.py`); return what it printed: when it began, and the moments of sending."""
        printed = await self._run([*self._filled(self._peer.submit), *map(str, arguments)])
        return [float(word) for word in printed.split()]

    async def until(self, count: int, *, patience: float) -> list[tuple[int, float]]:
        """Wait until each of `count` pieces is done; return what was done. Raises PeerFailed."""
        with anyio.move_on_after(patience):
            while len(dict(self.done.lines())) < count:  # noqa: ASYNC110 - other processes' doing
                await anyio.sleep(0.05)
            return self.done.lines()
        raise PeerFailed(f"{len(dict(self.done.lines()))} of {count} done after {patience:.0f} s; {self.tail()}")

    async def warm_up(self) -> None:
        """Wait until the workers work."""
        await self.submit("many", _WARM_UP)
        await self.until(_WARM_UP, patience=_START)
        self.done.skip()

    async def stop(self, number: signal.Signals) -> None:
        """Send every process of the workers a signal; after a while, kill what is left."""
        family = [member for worker in self._workers for member in _family(worker.pid)]
        for signal_number, patience in ((number, _STOP), (signal.SIGKILL, _STOP)):
            for member in family if signal_number == signal.SIGKILL else family_heads(self._workers):
                with suppress(psutil.NoSuchProcess):
                    member.send_signal(signal_number)
            with anyio.move_on_after(patience):
                for worker in self._workers:
                    await worker.wait()
        for worker in self._workers:
            await worker.aclose()
        self._workers.clear()

    def tail(self) -> str:
        """Return the end of what the workers wrote."""
        return self._log.read_text(errors="replace")[-600:] if self._log.exists() else ""

    async def _run(self, command: list[str]) -> str:
        done = await anyio.run_process(command, check=False, cwd=APPS, env=self._environ)
        if done.returncode:
            raise PeerFailed(f"{Path(command[0]).name}: {done.stderr.decode(errors='replace').strip()[:900]}")
        return done.stdout.decode()


def family_heads(workers: Sequence[anyio.abc.Process]) -> list[psutil.Process]:
    """Return the workers' first processes: they stop the others."""
    return [psutil.Process(worker.pid) for worker in workers if worker.returncode is None]


def _family(pid: int) -> list[psutil.Process]:
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@asynccontextmanager
async def start_peer(
    peer: Peer, data: Path, *, command: str = "/bin/true", prints: bool = False
) -> AsyncIterator[Running]:
    """Run a peer on fresh servers until the block is left. Raises NotInstalled, PeerFailed."""
    place = await environment_of(peer)
    async with AsyncExitStack() as stack:
        plan = await stack.enter_async_context(start_servers(data))
        done = data.with_name(data.name + ".done")
        done.touch()
        urls = {"redis": plan.redis_url, "database": plan.database_url}
        environ = {
            **environment(),
            **peer.environment,
            "PYTHONPATH": str(APPS),
            "BENCH_REDIS_URL": plan.redis_url,
            "BENCH_DATABASE_URL": plan.database_url,
            "BENCH_COMMAND": command,
            "BENCH_PRINTS": "1" if prints else "0",
            "BENCH_DONE": str(done),
            "PGDSN": plan.database_url,
            "PATH": os.pathsep.join([str(place / "bin"), os.environ.get("PATH", "")]),
        }
        words = {"bin": str(place / "bin"), "env": str(place), "apps": str(APPS), **urls}
        running = Running(peer, environ, words, data.with_name(data.name + ".log"))
        try:
            await running.setup()
            await running.serve()
            await running.warm_up()
            yield running
        finally:
            with anyio.CancelScope(shield=True):
                await running.stop(signal.SIGTERM)
