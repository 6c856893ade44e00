"""Which process of a running system is which role, and what each has used."""

from __future__ import annotations

import re
from collections import defaultdict

import msgspec
import psutil

TASKS = "commands"
"""What commands themselves used, as their workers learned when they reaped them."""

_ROLES = (
    ("postgres", re.compile(r"postgres")),
    ("valkey", re.compile(r"(valkey|redis)-server")),
    ("worker", re.compile(r"-m scheduler worker|dts-worker|scheduler[./]worker")),
    ("scheduler", re.compile(r"-m scheduler scheduler|dts-scheduler")),
    ("api", re.compile(r"-m scheduler api|dts-api")),
)


class Memory(msgspec.Struct, frozen=True):
    """Megabytes: `rss` counts what is shared with others in full, `uss` not at all."""

    rss: float
    uss: float


class Processes:
    """The process tree below `dts up`, whose API listens on `port`."""

    def __init__(self, pid: int, port: int) -> None:
        self._root = psutil.Process(pid)
        self._port = port
        self._adopted: list[tuple[str, psutil.Process]] = []

    def adopt(self, role: str, pid: int) -> None:
        """Count a process that somebody else has started as one of a role."""
        self._adopted.append((role, psutil.Process(pid)))

    def by_role(self) -> dict[str, list[psutil.Process]]:
        """Return the living processes of each role; `supervisor` is the one that started them."""
        roles: dict[str, list[psutil.Process]] = defaultdict(list)
        roles["supervisor"].append(self._root)
        known: dict[int, str] = {}
        for process in self._root.children(recursive=True):
            try:
                role = known.get(process.ppid()) or self._role(process)
            except psutil.NoSuchProcess:
                continue
            known[process.pid] = role
            roles[role].append(process)
        for role, process in self._adopted:
            if process.is_running():
                roles[role].append(process)
        return roles

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds that each role has used so far; a worker's children count as `commands`."""
        used: dict[str, float] = defaultdict(float)
        for role, processes in self.by_role().items():
            for process in processes:
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                used[role] += times.user + times.system
                if role != "supervisor":
                    used[TASKS if role == "worker" else role] += times.children_user + times.children_system
        return used

    def memory(self) -> dict[str, list[Memory]]:
        """Return what each process of each role holds."""
        held: dict[str, list[Memory]] = defaultdict(list)
        for role, processes in self.by_role().items():
            for process in processes:
                try:
                    info = process.memory_full_info()
                except psutil.NoSuchProcess:
                    continue
                held[role].append(Memory(info.rss / 1e6, info.uss / 1e6))
        return held

    def _role(self, process: psutil.Process) -> str:
        command = process.cmdline()
        text = " ".join(command)
        for role, pattern in _ROLES:
            if pattern.search(text):
                return role
        if command != self._root.cmdline():
            return "other"
        # `dts up` forks these two, so they bear its own command line: the API is the one that listens.
        listens = any(
            c.status == psutil.CONN_LISTEN and c.laddr.port == self._port for c in process.net_connections("inet")
        )
        return "api" if listens else "scheduler"


def difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return what each role used between two calls of `cpu`."""
    return {role: after[role] - before.get(role, 0.0) for role in sorted(after)}
