"""Cgroups: the part of the machine's process tree that is this worker's own.

    <the cgroup we were started in>/dts-<whose>/guard             the guard
                                               /work/worker       the worker, and commands without limits
                                               /work/cell-<n>     a command with limits, see `cells`

Nothing leaves a cgroup by forking, by a session of its own or by losing its parent. So the guard ends everything at
once by killing `work`, and who starts next on this machine ends and removes what a guard that was killed has left.

Controllers (memory, pids, cpu) come from cgroup v2 where we may use them, else from v1 hierarchies: on many machines
these still hold the controllers while v2 is mounted for the processes only. Where nothing of it may be written, there
are no cgroups, and the worker keeps its commands together by session. Imports the standard library only: the guard
uses it.
"""

from __future__ import annotations

import os
import signal
import time

from scheduler.worker import tree
from scheduler.worker.hierarchies import Hierarchy, own_hierarchies, text_of

VARIABLE = "DTS_CGROUPS"
"""Environment variable of the worker: a line `<version> <controllers> <path of work>` for each hierarchy."""

_UNKNOWN = 32768
_PREFIX = "dts-"
_PATIENCE = 5.0
"""Seconds that the dead may take to leave a cgroup."""


class Subtree:
    """The cgroups of one guard. `hierarchies` point at its `dts-…` directory in each."""

    def __init__(self, hierarchies: list[Hierarchy]) -> None:
        self.hierarchies = hierarchies

    @classmethod
    def make(cls) -> Subtree | None:
        """Make a subtree below our own cgroup and move into its `guard`; None where that is not possible.

        What a guard that is no more has left beside it is killed and removed.
        """
        name = _PREFIX + _whose(os.getpid())
        made: list[Hierarchy] = []
        for own in own_hierarchies():
            held = {controller for hierarchy in made for controller in hierarchy.controllers}
            wanted = tuple(controller for controller in own.controllers if controller not in held)
            if own.version == 1 and not wanted:
                continue
            sweep(own.directory)
            kept = not any(hierarchy.version == 2 for hierarchy in made)
            hierarchy = _make(own, wanted, name, kept=kept)
            if hierarchy is not None:
                made.append(hierarchy)
        return cls(made) if made else None

    @property
    def variable(self) -> str:
        """What the worker is told of it."""
        return "\n".join(f"{h.version} {'+'.join(h.controllers)} {h.directory}/work" for h in self.hierarchies)

    def enter(self, child: str) -> None:
        """Move this process into `guard` or `work/worker`. Raises OSError.

        Where v2 keeps all together, v1 only has the cells: to be accounted for by a controller there costs each command
        about a twentieth of what starting it costs.
        """
        for hierarchy in [h for h in self.hierarchies if h.version == 2] or self.hierarchies:
            write(f"{hierarchy.directory}/{child}/cgroup.procs", "0")

    def kill(self) -> None:
        """Kill the worker and all that it has started."""
        kill_below([f"{hierarchy.directory}/work" for hierarchy in self.hierarchies])

    def clear(self) -> None:
        """Remove the cells of a worker that has ended; nothing may be left in them."""
        for hierarchy in self.hierarchies:
            _remove_cells(f"{hierarchy.directory}/work")

    def remove(self) -> None:
        """Go back to where we came from and remove everything, as far as that is possible."""
        for hierarchy in self.hierarchies:
            base = hierarchy.directory.rpartition("/")[0]
            _remove_work(hierarchy.directory)
            try:
                if hierarchy.version == 2:  # a cgroup with processes gives no controllers to those below it
                    taken_back = " ".join(f"-{name}" for name in hierarchy.controllers)
                    for directory in (hierarchy.directory, base):  # a child that gives on what it got keeps it
                        write(f"{directory}/cgroup.subtree_control", taken_back)
                write(f"{base}/cgroup.procs", "0")
                os.rmdir(f"{hierarchy.directory}/guard")  # noqa: PTH106  # no pathlib, see above
                os.rmdir(hierarchy.directory)  # noqa: PTH106
            except OSError:  # others use it meanwhile: left for the next guard to sweep
                continue


def kill_below(directories: list[str]) -> None:
    """Kill all processes below the same cgroup of several hierarchies."""
    if any(_written(f"{directory}/cgroup.kill", "1") for directory in directories):
        return
    # v1 only, or a kernel before 5.14. Nobody forks from now on, and who is found can be killed one by one.
    bounds = {directory: text_of(f"{directory}/pids.max") for directory in directories}
    bounded = [directory for directory in directories if _written(f"{directory}/pids.max", "0")]
    deadline = time.monotonic() + _PATIENCE
    while (pids := _processes_below(directories[0])) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.001)
    for directory in bounded:
        _written(f"{directory}/pids.max", bounds[directory])


def most_processes() -> int:
    """Return how many processes and threads a worker and its commands may be together: 15 % of what there may be.

    So does systemd bound a service. What forks without end then leaves the machine, and its own guard, room to end it.
    """
    limits = [int(text_of(f"/proc/sys/kernel/{name}") or _UNKNOWN) for name in ("threads-max", "pid_max")]
    return min(limits) * 15 // 100


def sweep(directory: str) -> None:
    """Kill and remove what guards that are no more have left in a cgroup."""
    for name in _children(directory):
        if not name.startswith(_PREFIX) or not _is_over(name.removeprefix(_PREFIX)):
            continue
        path = f"{directory}/{name}"
        kill_below([f"{path}/work"])
        deadline = time.monotonic() + _PATIENCE
        while _processes_below(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        _remove_work(path)
        for child in ("/guard", ""):
            _rmdir(path + child)


def write(path: str, value: str) -> None:
    """Write a value to one of a cgroup's files. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _make(own: Hierarchy, wanted: tuple[str, ...], name: str, *, kept: bool) -> Hierarchy | None:
    path = f"{own.directory}/{name}"
    try:
        for directory in (path, f"{path}/guard"):
            os.mkdir(directory)  # noqa: PTH102
        if kept:
            write(f"{path}/guard/cgroup.procs", "0")
        if own.version == 2:
            wanted = tuple(controller for controller in wanted if _enable(controller, own.directory, path))
        os.mkdir(f"{path}/work")  # noqa: PTH102
        if own.version == 2:
            wanted = tuple(controller for controller in wanted if _enable(controller, f"{path}/work"))
        os.mkdir(f"{path}/work/worker")  # noqa: PTH102
        if "pids" in wanted:
            write(f"{path}/work/pids.max", str(most_processes()))
    except OSError:
        made = Hierarchy(own.version, wanted, path)
        Subtree([made]).remove()
        return None
    return Hierarchy(own.version, wanted, path)


def _enable(controller: str, *directories: str) -> bool:
    """Give a controller to what is below; False if it is not delegated, or other processes than ours are in the way."""
    return all(_written(f"{directory}/cgroup.subtree_control", f"+{controller}") for directory in directories)


def _written(path: str, value: str) -> bool:
    try:
        write(path, value)
    except OSError:
        return False
    return True


def _whose(pid: int) -> str:
    """Say who a process is among all that this machine will run until it boots again."""
    stat = tree.read_stat(pid)
    return f"{os.stat('/proc/self/ns/pid').st_ino}-{pid}-{stat.started if stat else 0}"  # noqa: PTH116


def _is_over(whose: str) -> bool:
    """Say whether it is certain that this process has ended: it might be one that we cannot see."""
    try:
        namespace, pid, started = (int(number) for number in whose.split("-"))
    except ValueError:
        return False
    if namespace != os.stat("/proc/self/ns/pid").st_ino:  # noqa: PTH116
        return False
    stat = tree.read_stat(pid)
    return stat is None or stat.dead or stat.started != started


def _processes_below(directory: str) -> list[int]:
    pids = [int(line) for line in text_of(f"{directory}/cgroup.procs").split()]
    for child in _children(directory):
        pids += _processes_below(f"{directory}/{child}")
    return pids


def _remove_cells(work: str) -> None:
    for child in _children(work):
        if child != "worker":
            _remove_tree(f"{work}/{child}")


def _remove_work(path: str) -> None:
    _remove_tree(f"{path}/work")


def _remove_tree(directory: str) -> None:
    for child in _children(directory):
        _remove_tree(f"{directory}/{child}")
    _rmdir(directory)


def _rmdir(directory: str) -> None:
    try:
        os.rmdir(directory)  # noqa: PTH106
    except OSError:
        return


def _children(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
