"""Servers that outlived their supervisor: found by their pid files and stopped before new ones start.

Only called by who holds the data directory's lock, so whatever still runs on it has no supervisor.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import anyio

from scheduler.service import sleep
from scheduler.telemetry import get_logger

_log = get_logger("embedded")


_LEAVING = 2.0  # seconds for processes that notice that their server has died


async def stop_leftover(
    pid_file: Path,
    *,
    program: str,
    directory: Path,
    signals: Sequence[tuple[signal.Signals, float]],
    locks: Sequence[Path] = (),
) -> None:
    """Stop the server that `pid_file` names, if it still runs `program` on `directory`, and what it has left there.

    In the end the file and the server's other `locks` are removed: they would stop the next start, should the pid be
    somebody else's by now, or that of a process which has died and which nobody has asked for its exit status.
    """
    files = [file for file in (pid_file, *locks) if file.exists()]
    if not files:
        return
    pid = read_pid(pid_file)
    if pid is not None and _is_ours(pid, program, directory):
        _log.warning("stopping a leftover server", program=program, pid=pid)
        for number, seconds in [*signals, (signal.SIGKILL, 10.0)]:
            if await _signal_and_wait(pid, number, seconds):
                break
    await _clear(program, directory)
    for file in files:
        file.unlink(missing_ok=True)


async def _clear(program: str, directory: Path) -> None:
    """Wait until nothing of `program` works in `directory`: without its lock, nothing would keep a new server away."""
    with anyio.move_on_after(_LEAVING):
        while _working_in(directory, program):
            await sleep(0.02)
    for pid in _working_in(directory, program):
        _log.warning("killing what a server has left", program=program, pid=pid)
        await _signal_and_wait(pid, signal.SIGKILL, 10.0)


def _working_in(directory: Path, program: str) -> list[int]:
    """Return the processes of `program` in `directory`, as far as /proc tells; those that have died are not in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = os.readlink(process / "cwd")  # noqa: PTH115 - may point to what is gone
            if where == str(directory.resolve()) and program in (process / "comm").read_text():
                found.append(int(process.name))
        except OSError:  # it has ended, or is none of our business
            continue
    return found


def read_pid(pid_file: Path) -> int | None:
    """Return the process id on the first line, or None where there is none."""
    try:
        return int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _is_ours(pid: int, program: str, directory: Path) -> bool:
    if pid <= 1:
        return False
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        cwd = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - may point to what is gone
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        return program in _ps(pid)  # no /proc: macOS
    except PermissionError:
        return False
    return program.encode() in words[0] and (cwd == str(directory.resolve()) or os.fsencode(directory) in words)


def _ps(pid: int) -> str:
    done = subprocess.run(  # noqa: S603
        ["ps", "-p", str(pid), "-o", "command="],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


async def _signal_and_wait(pid: int, number: signal.Signals, seconds: float) -> bool:
    """Return whether the process is gone `seconds` after the signal at the latest."""
    try:
        handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        os.kill(pid, number)
    except ProcessLookupError:
        return True
    with anyio.move_on_after(seconds):
        if handle is not None:
            try:
                await anyio.wait_readable(handle)
            finally:
                os.close(handle)
            return True
        while _alive(pid):
            await sleep(0.02)
        return True
    return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
