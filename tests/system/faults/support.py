"""What the tests of the matrix measure with."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.chronos.history import Execution
from tests.support.chronos.stamps import read_stamps, stamping
from tests.support.cluster import Cluster
from tests.support.waiting import until_sync

Figure = Callable[[str, float, float], None]


def slow(value: object) -> object:
    """Mark one value of a parameter as too slow for every day."""
    return pytest.param(value, marks=pytest.mark.chaos)


class Stamps:
    """Commands that stamp when they began and ended, and find out whether they were alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        directory.chmod(0o777)

    def command(self, seconds: float) -> str:
        """Return a command that takes so long the first time, and next to nothing when it is run again."""
        return stamping(self._directory, seconds, again=0.1)

    def of(self, run: str) -> list[Execution]:
        """Return the executions of a run, in order."""
        return sorted((e for e in read_stamps(self._directory) if e.run == run), key=lambda e: e.begin)

    def until_begun(self, runs: Sequence[str], seconds: float = 15.0) -> None:
        until_sync(lambda: all(self.of(run) for run in runs), seconds, "commands have begun")

    def elsewhere(self, run: str, seconds: float) -> Execution:
        """Wait for a second execution, check that nothing was left of the first, and return it."""
        until_sync(lambda: len(self.of(run)) > 1, seconds, "it was started again")
        second = self.of(run)[1]
        assert not second.shared, "the first execution was still there"
        return second


def lag(system: Cluster, runs: Sequence[str]) -> float:
    """Return how late the latest of these runs began, once all have completed."""
    return max((row["first_started_at"] - row["run_at"]).total_seconds() for row in system.until_completed(runs))


def spread(count: int, begin: float, end: float) -> list[dict[str, float]]:
    """Return one-off tasks that fall due evenly between two moments from now, so that each has to be promoted."""
    return [{"delay": begin + (end - begin) * number / count} for number in range(count)]


def submit_evenly(system: Cluster, count: int, seconds: float) -> list[str]:
    """Submit one task after the other at even intervals; return their runs."""
    began, runs = time.monotonic(), []
    for number in range(count):
        time.sleep(max(0.0, began + number * seconds / count - time.monotonic()))
        runs.append(system.submit()["last_run"]["id"])
    return runs


def until_quick(system: Cluster, seconds: float = 15.0) -> float:
    """Wait until new work starts at once again; return how long that took."""
    began = time.monotonic()
    until_sync(lambda: lag(system, system.submit_many(10)) < 0.25, seconds, "work starts at once again")
    return time.monotonic() - began


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mount a file system of that size; the test is skipped where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def fill(path: Path) -> None:
    """Write to a file until there is no room left."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """Make a directory that every user of this machine can pass through."""
    path = Path(tempfile.mkdtemp(prefix="dts-faults-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
