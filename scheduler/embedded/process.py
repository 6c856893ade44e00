"""One server as a supervised child: ready when it says so, its output in a bounded log, stopped cleanly."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

import anyio
import anyio.abc
import msgspec

from scheduler.embedded.account import Account
from scheduler.telemetry import get_logger

LOG_BYTES = 8 * 1024 * 1024
TAIL_LINES = 12

_log = get_logger("embedded")


class ServerFailed(Exception):
    """The server ended before it was ready; the message ends with the last lines that it printed."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a server, know that it is ready, and stop it: signals, each with the seconds to wait after it."""

    name: str
    argv: Sequence[str]
    account: Account | None
    log: Path
    ready: bytes
    stop: Sequence[tuple[signal.Signals, float]]


async def spawn(argv: Sequence[str], account: Account | None, *, stdin: int = DEVNULL) -> anyio.abc.Process:
    """Start a program as `account` in a session of its own (a terminal's Ctrl-C is ours to handle, not its)."""
    plain = account if account is not None and account.capability is None else None
    return await anyio.open_process(
        argv if account is None else account.wrap(argv),
        stdin=stdin,
        stdout=PIPE,
        stderr=STDOUT,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        start_new_session=True,
        user=None if plain is None else plain.uid,
        group=None if plain is None else plain.gid,
        extra_groups=None if plain is None else [],
    )


async def run_program(argv: Sequence[str], account: Account | None, stdin: bytes = b"") -> None:
    """Run a program to its end. Raises ServerFailed, with what it printed, unless it succeeds."""
    async with await spawn(argv, account, stdin=PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(anyio.BrokenResourceError):  # it does not want to know: its output will say why
            await process.stdin.send(stdin)
        await process.stdin.aclose()
        output = b"".join([chunk async for chunk in process.stdout])
        code = await process.wait()
    if code != 0:
        raise ServerFailed(f"{Path(argv[0]).name} failed ({code}): {output.decode(errors='replace').strip()}")


async def serve(command: Command, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> int:
    """Run the server until it exits and return its code; `started` once ready. Cancelled, it stops the server cleanly.

    Raises ServerFailed if it exits before it is ready.
    """
    process = await spawn([*_die_with_parent(), *command.argv], command.account)
    log = _BoundedLog(command.log)
    ready = anyio.Event()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_pump, process, command, log, ready, name=f"{command.name}:log")
            group.start_soon(_report, ready, task_status, name=f"{command.name}:ready")
            code = await process.wait()
            with anyio.move_on_after(1):
                await log.ended.wait()
            group.cancel_scope.cancel()
        if not ready.is_set():
            raise ServerFailed(f"{command.name} ended with {code} before it was ready:\n{log.tail()}")
        _log.warning("server ended", server=command.name, code=code, log=str(command.log))
        return code
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process, command)
            log.close()


def _die_with_parent() -> list[str]:
    """Return what to put before a command so that the kernel ends it with its parent, where there is such a thing."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


async def _report(ready: anyio.Event, task_status: anyio.abc.TaskStatus[None]) -> None:
    await ready.wait()
    task_status.started()


async def _pump(process: anyio.abc.Process, command: Command, log: _BoundedLog, ready: anyio.Event) -> None:
    assert process.stdout is not None
    rest = b""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            log.write(line)
            if command.ready in line:
                ready.set()
        rest = rest[-4096:]
    log.ended.set()


async def _stop(process: anyio.abc.Process, command: Command) -> None:
    for number, seconds in command.stop:
        if process.returncode is not None:
            break
        process.send_signal(number)
        with anyio.move_on_after(seconds):
            await process.wait()
    if process.returncode is None:
        _log.error("server had to be killed", server=command.name)
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()


class _BoundedLog:
    """A log file of about twice `LOG_BYTES` at most, the older half in `.1`; remembers its last lines.

    It stands where the server's data are: a line for which the disk has no room is dropped, and the server goes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._file: FileIO | None = None
        self.ended = anyio.Event()

    def write(self, line: bytes) -> None:
        self._lines.append(line.decode(errors="replace"))
        with contextlib.suppress(OSError):
            self._with_room().write(line + b"\n")

    def tail(self) -> str:
        return "\n".join(self._lines)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _with_room(self) -> FileIO:
        if self._file is not None and self._file.tell() > LOG_BYTES:
            self.close()
            self._path.replace(self._path.with_suffix(".log.1"))
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(self._path, "a")
        return self._file
