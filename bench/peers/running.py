"""A peer at work: its servers, its workers, what they are given and what they have done."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import anyio
import anyio.abc
import anyio.to_thread
import psutil

from bench.child import environment
from bench.peers.catalog import Peer
from bench.peers.environments import APPS, environment_of
from bench.peers.servers import start_servers

_WARM_UP = 20
_START = 30.0
_READY = 120.0
_STOP = 5.0


class PeerFailed(Exception):
    """A peer did not do what it was given; the message ends with the end of its log."""


class Done:
    """Lines that the work has appended: `index moment`, each read once: looking must cost little."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines: list[tuple[int, float]] = []
        self._indices: set[int] = set()

    def lines(self) -> list[tuple[int, float]]:
        """Return everything since the last skip, in the order in which it was done."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for index, at in (line.split() for line in new.splitlines()):
            self._lines.append((int(index), float(at)))
            self._indices.add(int(index))
        return self._lines

    def count(self) -> int:
        """Return how many different pieces have been done since the last skip."""
        self.lines()
        return len(self._indices)

    def skip(self) -> None:
        """Forget everything up to now."""
        self.lines()
        self._lines, self._indices = [], set()


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

    async def submit(self, *arguments: object, first: int = 0) -> list[float]:
        """Submit (see `apps/work.py`); return what it printed: when it began, and the moments of sending.

        Pieces are numbered from `first` on.
        """
        printed = await self._run([*self._filled(self._peer.submit), *map(str, arguments)], {"BENCH_FIRST": str(first)})
        return [float(word) for word in printed.split()]

    async def until(self, count: int, *, patience: float) -> list[tuple[int, float]]:
        """Wait until each of `count` pieces is done; return what was done. Raises PeerFailed."""
        with anyio.move_on_after(patience):
            while self.done.count() < count:  # noqa: ASYNC110 - other processes' doing
                await anyio.sleep(0.05)
            return self.done.lines()
        raise PeerFailed(f"{self.done.count()} of {count} done after {patience:.0f} s; {self.tail()}")

    async def warm_up(self) -> None:
        """Wait until the workers work."""
        if self._peer.runs_flows:
            with anyio.move_on_after(_READY):
                await self.submit("ready")
                return
            raise PeerFailed(f"not ready after {_READY:.0f} s; {self.tail()}")
        await self.submit("many", _WARM_UP)
        await self.until(_WARM_UP, patience=_START)
        self.done.skip()

    async def stop(self) -> None:
        """Ask the workers to end; kill what is left of them after a while."""
        for worker in self._workers:
            with suppress(ProcessLookupError):
                worker.terminate()
        with anyio.move_on_after(_STOP):
            for worker in self._workers:
                await worker.wait()
        await self.kill()

    async def kill(self) -> None:
        """Kill every process of the workers, commands and all, as a machine that loses its power would."""
        sessions = {worker.pid for worker in self._workers}
        for process in await anyio.to_thread.run_sync(halted, self._environ["BENCH_DONE"], sessions):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with anyio.move_on_after(_STOP):
            for worker in self._workers:
                await worker.wait()
        self._workers.clear()

    def tail(self) -> str:
        """Return the end of what the workers wrote."""
        return self._log.read_text(errors="replace")[-600:] if self._log.exists() else ""

    async def _run(self, command: list[str], variables: Mapping[str, str] = MappingProxyType({})) -> str:
        done = await anyio.run_process(command, check=False, cwd=APPS, env={**self._environ, **variables})
        if done.returncode:
            raise PeerFailed(f"{Path(command[0]).name}: {done.stderr.decode(errors='replace').strip()[:900]}")
        return done.stdout.decode()


def halted(mark: str, sessions: Collection[int] = ()) -> list[psutil.Process]:
    """Stop every process that has `mark` as its BENCH_DONE, is in one of the sessions, or has such a one as its parent.

    Some write over their environment, others leave their session or their parent: one of the three is left. A process
    that is stopped starts no other, so looking again finds what was started meanwhile, until there is nothing new.
    """
    found: dict[int, psutil.Process] = {}

    def belongs(process: psutil.Process) -> bool:
        try:
            near = process.ppid() in found or os.getsid(process.pid) in sessions
            return near or process.environ().get("BENCH_DONE") == mark
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            return False

    while new := [process for process in psutil.process_iter() if process.pid not in found and belongs(process)]:
        for process in new:
            found[process.pid] = process
            with suppress(psutil.NoSuchProcess):
                process.suspend()
    return list(found.values())


@asynccontextmanager
async def start_peer(
    peer: Peer,
    data: Path,
    *,
    command: str = "/bin/true",
    prints: bool = False,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Running]:
    """Run a peer on fresh servers until the block is left. Raises NotInstalled, PeerFailed."""
    place = await environment_of(peer)
    async with AsyncExitStack() as stack:
        plan = await stack.enter_async_context(start_servers(data))
        done = data.with_name(data.name + ".done")
        done.touch()
        words = {
            "bin": str(place / "bin"),
            "env": str(place),
            "apps": str(APPS),
            "home": str(data.with_name(data.name + ".home")),
            "port": str(_free_port()),
            "redis": plan.redis_url,
            "database": plan.database_url,
            "address": plan.database_url.removeprefix("postgresql"),
        }
        environ = {
            **environment(),
            **{name: value.format(**words) for name, value in peer.environment.items()},
            **variables,
            "PYTHONPATH": str(APPS),
            "BENCH_REDIS_URL": plan.redis_url,
            "BENCH_DATABASE_URL": plan.database_url,
            "BENCH_COMMAND": command,
            "BENCH_PRINTS": "1" if prints else "0",
            "BENCH_DONE": str(done),
            "PGDSN": plan.database_url,
            "PATH": os.pathsep.join([str(place / "bin"), os.environ.get("PATH", "")]),
        }
        running = Running(peer, environ, words, data.with_name(data.name + ".log"))
        try:
            await running.setup()
            await running.serve()
            await running.warm_up()
            yield running
        finally:
            with anyio.CancelScope(shield=True):
                await running.stop()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
