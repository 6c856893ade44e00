"""Submitting hostile commands to a system of real processes, and looking at what they do to its worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil

from scheduler.worker import tree
from tests.support.cluster import Cluster
from tests.support.cluster.cluster import TERMINAL
from tests.support.waiting import until_sync

MIB = 1024 * 1024


def python(script: str) -> list[str]:
    return ["python3", "-S", "-c", script]


def bomb(path: Path, *, width: int, seconds: float) -> list[str]:
    """Return a command that forks from several generations at once, each process in a session of its own.

    Whatever becomes of it, its user has no more than 200 processes.
    """
    script = f"""
import os, resource, time
if os.geteuid() != 0:
    resource.setrlimit(resource.RLIMIT_NPROC, (200, 200))
main = os.getpid()
end = time.monotonic() + {seconds}
open({str(path)!r}, "a").write(f"{{main}}\\n")
for _ in range({width}):
    try:
        if os.fork() == 0:
            break
    except OSError:
        pass
while time.monotonic() < end:
    try:
        if os.fork() == 0:
            os.setsid()
        elif os.getpid() % 3 and os.getpid() != main:
            os._exit(0)
    except OSError:
        pass
    time.sleep(0.01)
"""
    return python(script)


def submit(system: Cluster, command: str | list[str], **fields: Any) -> str:
    """Submit a command and return its run's id."""
    return system.submit_many(1, command=command, **fields)[0]


def ended(system: Cluster, run_id: str, seconds: float = 20.0) -> Any:
    """Wait until the run has ended and return its row."""

    def over() -> Any:
        row = system.run(run_id)
        return row if row["state"] in TERMINAL else None

    return until_sync(over, seconds, f"the end of {run_id}")


def executed(system: Cluster, command: str | list[str], seconds: float = 20.0, **fields: Any) -> Any:
    return ended(system, submit(system, command, **fields), seconds)


def note(path: Path, seconds: float = 15.0) -> str:
    """Wait for a line that a command writes to a file."""
    return until_sync(
        lambda: path.exists() and path.read_text().endswith("\n") and path.read_text().strip(), seconds, path.name
    )


def living(mark: str) -> list[int]:
    """Return the processes that were started with MARK=`mark` in their environment, or fork from such."""
    me = os.getpid()
    return [
        stat.pid
        for stat in tree.all_processes().values()
        if not stat.dead and stat.pid != me and tree.environment_value(stat.pid, "MARK") == mark
    ]


class Growth:
    """How much more memory a process has needed at any moment since, in bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._pid = process.pid
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # the peak begins anew
        self._before = self._status("VmRSS")

    def bytes(self) -> int:
        return self._status("VmHWM") - self._before

    def _status(self, field: str) -> int:
        text = Path(f"/proc/{self._pid}/status").read_text()
        return int(text.split(f"{field}:")[1].split()[0]) * 1024
