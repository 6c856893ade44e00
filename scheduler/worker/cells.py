"""Cells: cgroups for commands with limits, one command at a time in each.

A cell is made when one is needed and used again when it is empty: making and removing one takes 320 µs where three
controllers are v1 hierarchies (46 µs for v2 alone). What becomes the command goes into its cell by its own hand, before
it executes anything of the task's (`bounded`): it writes to descriptors that the worker has opened, so that nothing can
fork itself out of the cell first.

Commands without limits have no cell; they stay in the worker's own cgroup, which its guard kills as one. `/bin/true`
takes 540 µs of processor time in all, about 1,500 µs with resource limits (their fork) and 1,700 µs in a cell. Were it
moved by the worker after it has started, that would still be 6 to 30 µs for each hierarchy, and too late for what forks
at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

import msgspec

from scheduler.domain.sizes import parse_size
from scheduler.domain.task import Limits
from scheduler.worker import cgroups
from scheduler.worker.hierarchies import Hierarchy
from scheduler.worker.tree import bytes_of

_PERIOD = 100_000
_LEAST_QUOTA = 1000
_MOST_PIDS = 4 * 1024 * 1024
"""The kernel knows no larger limit: there are no more pids."""
_DIRTY = 1024 * 1024 + 512 * 1024 * (os.cpu_count() or 1)
"""Bytes that a command may leave charged to its cell (cached files, shared memory) for it to be used again; part of
that is not its doing, since the kernel charges in advance for each processor."""


class Bounds(msgspec.Struct, frozen=True):
    """What a cell enforces: bytes of memory, processes and threads, processors."""

    memory: int | None = None
    pids: int | None = None
    cpu: float | None = None


_NO_BOUNDS = Bounds()


class Cell:
    """A cgroup in every hierarchy. `descriptors`: whoever writes `0` to each of them is inside."""

    def __init__(self, name: str, hierarchies: Iterable[Hierarchy]) -> None:
        self.bounds = _NO_BOUNDS
        self._parts = [Hierarchy(h.version, h.controllers, f"{h.directory}/{name}") for h in hierarchies]
        self._path = "/".join(["", *self._parts[0].directory.split("/")[-3:]]).encode()  # `/dts-…/work/cell-…`
        self._kill = next((f"{p.directory}/cgroup.kill" for p in self._parts if p.version == 2), "")
        self._memory = next((part for part in self._parts if "memory" in part.controllers), None)
        self._killed_before = 0
        descriptors: list[int] = []
        try:
            for part in self._parts:
                os.mkdir(part.directory)  # noqa: PTH102  # as in `cgroups`
                descriptors.append(os.open(f"{part.directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            self.descriptors = tuple(descriptors)
            self.remove()
            raise
        self.descriptors = tuple(descriptors)

    def bound(self, bounds: Bounds) -> None:
        """Set what it enforces from now on. Raises OSError."""
        if bounds != self.bounds:
            for part in self._parts:
                for controller, file, value, optional in _settings(part.version, bounds):
                    if controller in part.controllers:
                        _set(f"{part.directory}/{file}", value, optional=optional)
            self.bounds = bounds
        self._killed_before = self._killed()

    @property
    def out_of_memory(self) -> bool:
        """Whether anything in it was killed for using more memory than allowed, since it was last bound."""
        return self._killed() > self._killed_before

    def kill(self) -> bool:
        """Kill all that is in it, also what is just being forked; False if this kernel cannot."""
        if not self._kill:
            return False
        try:
            cgroups.write(self._kill, "1")
        except OSError:
            return False
        return True

    def holds(self, pid: int) -> bool:
        """Say whether a process is in it."""
        return any(line.endswith(self._path) for line in bytes_of(f"/proc/{pid}/cgroup").splitlines())

    @property
    def clean(self) -> bool:
        """Whether another command may use it."""
        return not any(bytes_of(f"{part.directory}/cgroup.procs") for part in self._parts) and self._charged() <= _DIRTY

    def remove(self) -> None:
        """Remove it, if it is empty; else it is left to the guard."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = ()
        for part in self._parts:
            try:
                os.rmdir(part.directory)  # noqa: PTH106
            except OSError:
                continue

    def _killed(self) -> int:
        if self._memory is None:
            return 0
        file = "memory.events" if self._memory.version == 2 else "memory.oom_control"
        words = bytes_of(f"{self._memory.directory}/{file}").split()
        return int(words[words.index(b"oom_kill") + 1]) if b"oom_kill" in words else 0

    def _charged(self) -> int:
        if self._memory is None:
            return 0
        file = "memory.current" if self._memory.version == 2 else "memory.usage_in_bytes"
        return int(bytes_of(f"{self._memory.directory}/{file}") or 0)


class Cells:
    """The cells of one worker. `containment` names what keeps commands together, `controllers` what can be bounded."""

    def __init__(self, hierarchies: list[Hierarchy]) -> None:
        self._hierarchies = hierarchies
        self._free: list[Cell] = []
        self._made = 0
        self.controllers = frozenset(name for hierarchy in hierarchies for name in hierarchy.controllers)
        versions = {hierarchy.version for hierarchy in hierarchies}
        self.containment = f"cgroup{min(versions)}" if versions else "session"

    @classmethod
    def inherited(cls, value: str | None) -> Cells:
        """Return the cells below what the guard has made (`DTS_CGROUPS`); none without a guard."""
        hierarchies = []
        for line in (value or "").splitlines():
            version, controllers, directory = line.split(" ", 2)
            hierarchies.append(Hierarchy(int(version), tuple(filter(None, controllers.split("+"))), directory))
        return cls(hierarchies)

    def take(self, limits: Limits) -> Cell | None:
        """Return a cell that enforces what it can of `limits`; None if there is nothing of it. Raises OSError."""
        bounds = Bounds(
            memory=parse_size(limits.memory) if limits.memory is not None and "memory" in self.controllers else None,
            pids=limits.pids if "pids" in self.controllers and (limits.pids or 0) <= _MOST_PIDS else None,
            cpu=limits.cpu if "cpu" in self.controllers and (limits.cpu or 0) < (os.cpu_count() or 1) else None,
        )
        if bounds == _NO_BOUNDS:
            return None
        cell = self._free.pop() if self._free else self._make()
        try:
            cell.bound(bounds)
        except OSError:
            cell.remove()
            raise
        return cell

    def give_back(self, cell: Cell) -> None:
        """Be done with a cell, whose command is gone."""
        if cell.clean:
            self._free.append(cell)
        else:
            cell.kill()
            cell.remove()

    def end_worker(self) -> None:
        """Kill this worker with all that it has started, at once; without cgroups it returns, having done nothing."""
        if self._hierarchies:
            cgroups.kill_below([hierarchy.directory for hierarchy in self._hierarchies])

    def close(self) -> None:
        """Remove all that are not in use."""
        for cell in self._free:
            cell.remove()
        self._free.clear()

    def _make(self) -> Cell:
        self._made += 1
        return Cell(f"cell-{os.getpid()}-{self._made}", self._hierarchies)


def _settings(version: int, bounds: Bounds) -> list[tuple[str, str, str, bool]]:
    """Return (controller, file, value, whether the file may be missing), in the order in which they are to be set."""
    quota = None if bounds.cpu is None else max(_LEAST_QUOTA, round(bounds.cpu * _PERIOD))
    pids = "max" if bounds.pids is None else str(bounds.pids)
    if version == 2:
        memory = "max" if bounds.memory is None else str(bounds.memory)
        return [
            ("memory", "memory.max", memory, False),
            ("memory", "memory.swap.max", "max" if bounds.memory is None else "0", True),
            ("memory", "memory.oom.group", "1", True),
            ("pids", "pids.max", pids, False),
            ("cpu", "cpu.max", f"{'max' if quota is None else quota} {_PERIOD}", False),
        ]
    memory = "-1" if bounds.memory is None else str(bounds.memory)
    return [
        ("memory", "memory.memsw.limit_in_bytes", "-1", True),  # never below the other one
        ("memory", "memory.limit_in_bytes", memory, False),
        ("memory", "memory.memsw.limit_in_bytes", memory, True),
        ("pids", "pids.max", pids, False),
        ("cpu", "cpu.cfs_period_us", str(_PERIOD), False),
        ("cpu", "cpu.cfs_quota_us", "-1" if quota is None else str(quota), False),
    ]


def _set(path: str, value: str, *, optional: bool) -> None:
    try:
        cgroups.write(path, value)
    except OSError as error:
        if not (optional and error.errno in {errno.ENOENT, errno.EOPNOTSUPP}):
            raise
