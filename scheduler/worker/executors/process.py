"""The default executor: a process of its own session on this machine."""

from __future__ import annotations

import msgspec

from scheduler.domain.sizes import parse_size
from scheduler.domain.task import Limits, TaskSpec
from scheduler.worker.capture import Capture
from scheduler.worker.processes import Process, Processes
from scheduler.worker.spawn import Launch

_NO_LIMITS = Limits()


class ProcessExecutor:
    """Commands as plain processes, kept together by session and subreaper."""

    name = "process"
    containment = "session"

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    async def start(self, launch: Launch, spec: TaskSpec, fence: int, capture: Capture) -> Process:
        """Start a command. Raises SpawnError or LeaseLost."""
        if spec.limits != _NO_LIMITS:
            launch = msgspec.structs.replace(launch, prefix=limiting(spec.limits))
        return await self._processes.start(launch, fence, capture)


def limiting(limits: Limits) -> list[str]:
    """Return the words to put before a command so that it runs under `limits`; empty if none needs it.

    A limit that is already lower stays. `memory` bounds the address space of each process, `pids` the processes of the
    whole user; shares of `cpu` take a cgroup and are not bounded here.
    """
    orders = []
    if limits.files is not None:
        orders.append(f"ulimit -n {limits.files}")
    if limits.memory is not None:
        orders.append(f"ulimit -v {max(1, parse_size(limits.memory) // 1024)}")
    if limits.pids is not None:
        orders.append(f"{{ ulimit -u {limits.pids} || ulimit -p {limits.pids}; }}")
    if not orders:
        return []
    script = "; ".join(f"{order} 2>/dev/null" for order in orders)
    return ["/bin/sh", "-c", f'{script}; exec "$@"', "sh"]
