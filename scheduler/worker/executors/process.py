"""The default executor: a process of its own session on this machine."""

from __future__ import annotations

import resource

import msgspec

from scheduler.domain.sizes import parse_size
from scheduler.domain.task import Limits, TaskSpec
from scheduler.worker.capture import Capture
from scheduler.worker.cells import Bounds, Cells
from scheduler.worker.launch import Launch
from scheduler.worker.processes import Process, Processes
from scheduler.worker.spawn import SpawnError

_NO_LIMITS = Limits()
_NO_BOUNDS = Bounds()
_LEAST_ADDRESS_SPACE = 1024
_MOST = 2**63 - 1
"""What a resource limit can be, short of none at all."""


class ProcessExecutor:
    """Commands as plain processes, kept together by session and subreaper, and by a cgroup where there is one."""

    name = "process"

    def __init__(self, processes: Processes, cells: Cells) -> None:
        self._processes = processes
        self._cells = cells
        self.containment = cells.containment

    async def start(self, launch: Launch, spec: TaskSpec, fence: int, capture: Capture) -> Process:
        """Start a command. Raises SpawnError or LeaseLost."""
        if spec.limits == _NO_LIMITS:
            return await self._processes.start(launch, fence, capture)
        try:
            cell = self._cells.take(spec.limits)
        except OSError as error:
            raise SpawnError("limits_not_set", f"the cgroup for its limits: {error}") from error
        bounds, entrances = (_NO_BOUNDS, ()) if cell is None else (cell.bounds, cell.descriptors)
        launch = msgspec.structs.replace(launch, limits=resource_limits(spec.limits, bounds), cell=entrances)
        if cell is None:
            return await self._processes.start(launch, fence, capture)
        try:
            process = await self._processes.start(launch, fence, capture, cell)
        except BaseException:
            self._cells.give_back(cell)
            raise
        process.gone.add_done_callback(lambda _: self._cells.give_back(cell))
        return process


def resource_limits(limits: Limits, bounds: Bounds) -> list[tuple[int, int]]:
    """Return the resource limits for what no cell bounds: pairs of `RLIMIT_…` and the most of it.

    `memory` bounds the address space of each process, `pids` the processes of the whole user. Runs with a limit on
    `cpu` come only to workers whose cells enforce it.
    """
    found = []
    if limits.files is not None:
        found.append((resource.RLIMIT_NOFILE, limits.files))
    if limits.pids is not None and bounds.pids is None:
        found.append((resource.RLIMIT_NPROC, limits.pids))
    if limits.memory is not None and bounds.memory is None:
        found.append((resource.RLIMIT_AS, max(_LEAST_ADDRESS_SPACE, parse_size(limits.memory))))
    return [(which, min(most, _MOST)) for which, most in found]
