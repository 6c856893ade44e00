"""The default executor: a process of its own session on this machine."""

from __future__ import annotations

import msgspec

from scheduler.domain.sizes import parse_size
from scheduler.domain.task import Limits, TaskSpec
from scheduler.worker.capture import Capture
from scheduler.worker.cells import Bounds, Cell, Cells
from scheduler.worker.launch import Launch
from scheduler.worker.processes import Process, Processes
from scheduler.worker.spawn import SpawnError

_NO_LIMITS = Limits()
_NO_BOUNDS = Bounds()


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
        launch = msgspec.structs.replace(
            launch, prefix=limiting(spec.limits, cell), descriptors=() if cell is None else cell.descriptors
        )
        if cell is None:
            return await self._processes.start(launch, fence, capture)
        try:
            process = await self._processes.start(launch, fence, capture, cell)
        except BaseException:
            self._cells.give_back(cell)
            raise
        process.gone.add_done_callback(lambda _: self._cells.give_back(cell))
        return process


def limiting(limits: Limits, cell: Cell | None = None) -> list[str]:
    """Return the words to put before a command so that it runs under `limits`; empty if none needs it.

    It enters its cell, which holds what it can; its first descriptor is 3. Other limits are resource limits, and one
    that is already lower stays: `memory` bounds the address space of each process, `pids` the processes of the whole
    user. Runs with a limit on `cpu` come only to workers whose cells enforce it.
    """
    bounds = _NO_BOUNDS if cell is None else cell.bounds
    orders = []
    if cell is not None:
        numbers = range(3, 3 + len(cell.descriptors))
        entering = " && ".join(f"echo 0 >&{number}" for number in numbers)
        orders.append(f"{{ {entering}; }} || exit 126; exec {' '.join(f'{number}>&-' for number in numbers)}")
    if limits.files is not None:
        orders.append(f"ulimit -n {limits.files} 2>/dev/null")
    if limits.memory is not None and bounds.memory is None:
        orders.append(f"ulimit -v {max(1, parse_size(limits.memory) // 1024)} 2>/dev/null")
    if limits.pids is not None and bounds.pids is None:
        orders.append(f"{{ ulimit -u {limits.pids} || ulimit -p {limits.pids}; }} 2>/dev/null")
    if not orders:
        return []
    return ["/bin/sh", "-c", f'{"; ".join(orders)}; exec "$@"', "sh"]
