"""A server process that says `ready http://HOST:PORT` on stdout: started, waited for, stopped."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import psutil

from bench.child import environment

_READY = re.compile(rb"^ready http://([^:/\s]+):(\d+)", re.MULTILINE)
_START_TIMEOUT = 60.0  # seconds; a system with millions of rows may recover first
_STOP_TIMEOUT = 60.0


class ServerFailed(Exception):
    """It did not come up, or went away; the message ends with the end of its log."""


class Server:
    """A running server."""

    def __init__(self, process: anyio.abc.Process, host: str, port: int, log: Path) -> None:
        self._process = process
        self._log = log
        self.host = host
        self.port = port

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

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
        if process.returncode is not None:
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
        try:
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        except psutil.NoSuchProcess:
            family = []
        process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(_STOP_TIMEOUT):
            await process.wait()
        for member in family:
            if member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                member.kill()
    await process.aclose()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
