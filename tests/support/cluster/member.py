"""One process of a role, with what can be done to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from scheduler import lifeline
from scheduler.config.loading import to_environment
from tests.support.cluster.links import Link
from tests.support.cluster.namespaces import Wire
from tests.support.cluster.role import VARIABLE, write_offset
from tests.support.failpoints import Failpoints
from tests.support.up import CHECKOUT
from tests.support.waiting import until_sync


class Member:
    """A process of a role; a worker is its guard, and `worker` the worker proper. `ways` lead to its servers."""

    def __init__(
        self,
        role: str,
        name: str,
        home: Path,
        settings: Mapping[str, object],
        *,
        ways: Mapping[str, Link | Wire],
        prefix: Sequence[str] = (),
        release: Path | None = None,
    ) -> None:
        self.role = role
        self.name = name
        self.ways = ways
        self.log = home / f"{name}.log"
        self.failpoints = Failpoints(home / f"{name}.points")
        self._clock = home / f"{name}.clock"
        self._settings = settings
        self._prefix = prefix
        self._release = release
        self._popen: subprocess.Popen[bytes] | None = None
        self.move_clock(0.0)

    def start(self) -> None:
        """Start it, or start it again."""
        assert not self.alive
        program = "guard" if self.role == "worker" else self.role
        words = ["tests.support.cluster.role", program]
        if self._release is not None:  # as it was: it knows nothing of clocks that jump
            words = ["scheduler.worker.guard"] if self.role == "worker" else ["scheduler", self.role]
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(self._release or CHECKOUT),
                    "PYTHONSAFEPATH": "1",
                    lifeline.VARIABLE: str(os.getpid()),
                    VARIABLE: str(self._clock),
                    "DTS_LOG__FORMAT": "json",
                    **self.failpoints.environment,
                    **to_environment(self._settings),
                },
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether its first process (a worker's guard) exists."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def worker(self) -> psutil.Process:
        """The worker proper. Raises LookupError while there is none."""
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "dts-worker":
                    return child
        raise LookupError(f"{self.name} has no worker now")

    @property
    def worker_pid(self) -> int | None:
        """Its process number; None while there is none."""
        try:
            return self.worker.pid
        except (LookupError, psutil.NoSuchProcess):
            return None

    def tree(self) -> list[psutil.Process]:
        """Return every process of it, its first one first; of a worker with all that its commands started."""
        try:
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def commands(self) -> list[psutil.Process]:
        """Return what a worker's commands consist of."""
        worker = self.worker.pid
        return [process for process in self.tree() if process.pid not in (self.pid, worker) and not _spawns(process)]

    def spawners(self) -> list[psutil.Process]:
        """Return the processes that start a worker's commands."""
        return [process for process in self.worker.children() if _spawns(process)]

    def signal(self, number: signal.Signals) -> None:
        assert self._popen is not None
        self._popen.send_signal(number)

    def stop(self, seconds: float = 30.0) -> float:
        """Ask it to end and wait until it has; return how long that took."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        self.wait(seconds)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL its first process: of a worker, the guard."""
        assert self._popen is not None
        self._popen.kill()
        self.wait(10)

    def wait(self, seconds: float) -> int:
        assert self._popen is not None
        return self._popen.wait(seconds)

    def move_clock(self, seconds: float) -> None:
        """Set how far its wall clock is from the machine's."""
        write_offset(self._clock, seconds)

    def end(self) -> None:
        """Leave nothing of it."""
        left = self.tree()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._popen is not None:
            self._popen.wait(10)
        until_sync(lambda: not any(running(process) for process in left))


def running(process: psutil.Process) -> bool:
    """Say whether a process is more than an exit status."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _spawns(process: psutil.Process) -> bool:
    try:
        return "scheduler.worker.spawner" in process.cmdline()
    except psutil.Error:  # it has just ended
        return True
