"""A server process that says `ready http://HOST:PORT` on stdout: started, waited for, stopped."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import psutil

from bench.child import environment

_READY = re.compile(rb"^ready http://([^:/\s]+):(\d+)", re.MULTILINE)
_START_TIMEOUT = 60.0  # seconds; a system with millions of rows may recover first
_STOP_TIMEOUT = 60.0
_BURIAL = 10.0


class ServerFailed(Exception):
    """It did not come up, or went away; the message ends with the end of its log."""


class Server:
    """A running server."""

    def __init__(self, process: anyio.abc.Process, host: str, port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self._killed = False
        self.host = host
        self.port = port

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    async def kill(self) -> None:
        """Kill it with everything that it has started, all at once, and wait until the system has buried them."""
        self._killed = True
        family = _family(self.pid)
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        await self._process.wait()
        await anyio.to_thread.run_sync(psutil.wait_procs, family, _BURIAL)

    @property
    def went_away(self) -> bool:
        """Say whether it ended though nobody had meant it to."""
        return self._process.returncode is not None and not self._killed

    def tail(self) -> str:
        """Return the end of what it wrote to stderr."""
        return _tail(self._log)


@asynccontextmanager
async def start_server(command: Sequence[str], log: Path) -> AsyncIterator[Server]:
    """Run `command` until the block is left; its stderr goes to `log`. Raises ServerFailed."""
    with log.open("ab") as stderr:
        process = await anyio.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(),
            start_new_session=True,
        )
    try:
        host, port = await _ready(process, log)
        server = Server(process, host, port, log)
        yield server
        if server.went_away:
            raise ServerFailed(f"{command[0]} went away with code {process.returncode}:\n{server.tail()}")
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


async def _ready(process: anyio.abc.Process, log: Path) -> tuple[str, int]:
    assert process.stdout is not None
    said = b""
    with anyio.move_on_after(_START_TIMEOUT):
        async for data in process.stdout:
            said += data
            found = _READY.search(said)
            if found is not None:
                return found[1].decode(), int(found[2])
    raise ServerFailed(f"not ready:\n{_tail(log)}")


async def _stop(process: anyio.abc.Process) -> None:
    """Ask it to end; what is left of its own processes after a long while is killed."""
    if process.returncode is None:
        family = _family(process.pid)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(_STOP_TIMEOUT):
            await process.wait()
        for member in family:
            if member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                member.kill()
    await process.aclose()


def _family(pid: int) -> list[psutil.Process]:
    """Return the process and all below it, the root first: it must not see the others die."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
