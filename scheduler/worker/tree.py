"""Finding processes in /proc, and killing whole trees of them. Imports the standard library only.

A pid may be recycled between being found and being signalled, so a process is its pid and its start time, and a
signal goes through a pidfd that was checked against both.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping

_ROUNDS = 200
"""How often to look again for processes that were forked meanwhile. Each round stops all that were found before it."""


class Stat:
    """What `/proc/<pid>/stat` says; `started` is in clock ticks since boot."""

    __slots__ = ("group", "parent", "pid", "session", "started", "state")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.started = int(fields[19])

    @property
    def dead(self) -> bool:
        """Whether nothing is left of it but an exit status."""
        return self.state in "ZX"


def bytes_of(path: str) -> bytes:
    """Return what a file holds, nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # the guard does without pathlib: it is a third of its memory
            return file.read()
    except OSError:
        return b""


def read_stat(pid: int) -> Stat | None:
    """Return the process's stat, None once it is gone."""
    text = bytes_of(f"/proc/{pid}/stat")
    return Stat(pid, text[text.rindex(b")") + 2 :].split()) if text else None  # the name before it may hold anything


def all_processes() -> dict[int, Stat]:
    """Return every process that this one can see."""
    stats = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
    return {stat.pid: stat for stat in stats if stat is not None}


def children_of(processes: Mapping[int, Stat]) -> dict[int, list[int]]:
    """Return the children of each process that has any."""
    children: dict[int, list[int]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    return children


def descendants(roots: Iterable[int], processes: Mapping[int, Stat]) -> list[int]:
    """Return everything below `roots`, themselves not included; parents come before their children."""
    return below(roots, children_of(processes))


def below(roots: Iterable[int], children: Mapping[int, list[int]]) -> list[int]:
    """Return the same where it is known whose children are whose."""
    found: dict[int, None] = {}
    waiting = list(roots)
    while waiting:
        new = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return list(found)


def own_descendants() -> list[Stat]:
    """Return everything below this process."""
    processes = all_processes()
    return [processes[pid] for pid in descendants([os.getpid()], processes)]


def environment_value(pid: int, name: str) -> str | None:
    """Return a variable of the environment that the process was started with, if that can be read."""
    prefix = name.encode() + b"="
    for item in bytes_of(f"/proc/{pid}/environ").split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode("utf-8", "replace")
    return None


def send(stat: Stat, number: int) -> bool:
    """Signal exactly this process; False if it has gone, or may not be signalled by us."""
    try:
        pidfd = os.pidfd_open(stat.pid)
    except OSError:
        return False
    try:
        now = read_stat(stat.pid)
        if now is None or now.started != stat.started:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(pidfd)


def signal_group(group: int, number: int) -> None:
    """Signal a process group whose leader is not reaped yet, so that its number is nobody else's."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nobody is left in it, or only what may not be signalled
        return


def kill_all(find: Callable[[], Iterable[Stat]]) -> int:
    """Kill all that `find` returns, and all that these fork meanwhile; returns how many were killed.

    Everything is stopped first, round by round until nothing new appears: a stopped process forks no more, so a fork
    bomb runs out of forkers before the killing begins.
    """
    found: dict[tuple[int, int], Stat] = {}
    for _ in range(_ROUNDS):
        new = [s for s in find() if (s.pid, s.started) not in found and not s.dead]
        if not new:
            break
        for stat in new:
            found[stat.pid, stat.started] = stat
            send(stat, signal.SIGSTOP)
    return sum(send(stat, signal.SIGKILL) for stat in found.values())
