"""Running commands without the rest of a worker."""

from __future__ import annotations

import gc
import itertools
import os
import resource
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from scheduler.domain.clock import SystemClock
from scheduler.worker.capture import Capture
from scheduler.worker.identity import Identity, current_identity
from scheduler.worker.launch import Launch
from scheduler.worker.page import LeasePage
from scheduler.worker.processes import Process, Processes
from scheduler.worker.spawn import DEFAULT_PATH
from tests.support import until

MIB = 1024 * 1024


def alive(pid: int) -> bool:
    """Whether the process exists and is more than an exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


async def first_line(path: Path) -> str:
    """Wait for what a command writes, with its newline; return it."""
    return await until(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text().strip())


def open_files(pid: int | None = None) -> Counter[str]:
    """What the process has open, ours if none is named, by kind and inode.

    Compare by what came (`open_files() - before`): what earlier tests left in cycles of our own memory may be closed
    at any moment, which would hide what leaked.
    """
    gc.collect()
    opened: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid or os.getpid()}/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that reads the directory
            opened[str(descriptor.readlink())] += 1
    return opened


@contextmanager
def files_limited(number: int) -> Iterator[None]:
    """Let this process open files below this number only, until the block ends or something raises that again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_files_left() -> Iterator[None]:
    """Let this process open no more than one file while the block lasts."""
    opened = {path.name for path in Path("/proc/self/fd").iterdir()}  # with the one that reads the directory
    with files_limited(next(number for number in itertools.count() if str(number) not in opened)):
        yield


class Runner:
    """Starts commands and returns what they printed."""

    def __init__(self, processes: Processes, page: LeasePage) -> None:
        self.processes = processes
        self.page = page
        self._fence = 1000

    async def start(
        self, command: str | list[str], *, limit: int = MIB, identity: Identity | None = None, **fields: Any
    ) -> Process:
        self._fence += 1
        arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        environment = {"PATH": DEFAULT_PATH, "DTS_FENCE": str(self._fence), **fields.pop("env", {})}
        launch = Launch(arguments, environment, identity or current_identity(), **fields)
        return await self.processes.start(launch, self._fence, Capture(limit))

    async def run(self, command: str | list[str], **fields: Any) -> Process:
        process = await self.start(command, **fields)
        with anyio.fail_after(20):
            await process.gone
        return process


def printed(process: Process, stream: str | None = None) -> bytes:
    return b"".join(p.data for p in process.capture.take(1 << 30) if stream in (None, p.stream))


@asynccontextmanager
async def runner() -> AsyncIterator[Runner]:
    def lost() -> None:
        raise AssertionError("a spawner has died")

    page = LeasePage.new()
    processes = Processes("/", page, SystemClock(), sole=False, lost=lost)
    try:
        yield Runner(processes, page)
    finally:
        processes.kill_everything()
        processes.close()


def python(script: str) -> list[str]:
    return [sys.executable, "-S", "-c", script]
