"""What the role has of this machine, whichever incarnation uses it: processes, files, users, the guard's page."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from scheduler.domain.clock import Clock
from scheduler.domain.lane import CPU_LIMIT
from scheduler.telemetry import get_logger
from scheduler.worker import cgroups, linux, tree
from scheduler.worker.cells import Cells
from scheduler.worker.executors import Executor
from scheduler.worker.executors.process import ProcessExecutor
from scheduler.worker.identity import Identity, current_identity, identity_of
from scheduler.worker.launch import Launcher
from scheduler.worker.page import VARIABLE, LeasePage
from scheduler.worker.processes import Processes
from scheduler.worker.scratch import Scratch
from scheduler.worker.settings import WorkerSettings

_FILES = 5
"""Files that a worker has open for one command at most: two pipes, and three to move it into a cell."""

_log = get_logger("worker")


class Machine(msgspec.Struct, frozen=True):
    """The parts, made once."""

    page: LeasePage
    processes: Processes
    cells: Cells
    scratch: Scratch
    launcher: Launcher
    executors: Mapping[str, Executor]
    containment: str

    @property
    def labels(self) -> Mapping[str, str]:
        """What this machine can do that not every machine can."""
        return CPU_LIMIT if "cpu" in self.cells.controllers else {}

    @classmethod
    def prepare(cls, settings: WorkerSettings, clock: Clock) -> Machine:
        """Set this process up for running commands. Raises UnknownUser if `task_user` is none."""
        guard = os.environ.get(VARIABLE)
        page = LeasePage.new() if guard is None else LeasePage.inherited(guard)
        default = task_identity(settings.task_user)
        if linux.SUPPORTED and guard is not None:
            linux.become_subreaper()
            linux.forbid_inspection()
            keep_descriptors_private()
        cells = Cells.inherited(os.environ.pop(cgroups.VARIABLE, None) if guard is not None else None)

        def lost() -> None:
            _end("a spawner has died", cells, processes)

        processes = Processes(default.directory, page, clock, sole=guard is not None, lost=lost)
        open_more_files(settings.slots)  # not the commands: what starts them is there
        executor = ProcessExecutor(processes, cells)
        return cls(
            page,
            processes,
            cells,
            Scratch(settings.state_dir, default.uid),
            Launcher(default, settings.api_url, clock),
            {executor.name: executor},
            executor.containment,
        )

    def look_after(self) -> None:
        """Find out what commands have left: daemons and files. To be called now and then while any run."""
        self.processes.look_after()
        self.scratch.tidy()

    def close(self) -> None:
        """Release everything; no command may be running."""
        self.processes.close()
        self.cells.close()
        self.scratch.close()


def task_identity(task_user: str) -> Identity:
    """Return who commands run as: `task_user` if we are root and may choose, else ourselves."""
    if os.geteuid() == 0 and linux.SUPPORTED:
        return identity_of(task_user)
    return current_identity()


@contextmanager
def watch_guard(value: str | None, machine: Machine) -> Iterator[None]:
    """Kill everything and exit at once should the guard (`DTS_GUARD`) die: nobody holds us to our lease any more."""
    if value is None:
        yield
        return
    guard = int(value.split(",")[2])
    try:
        pidfd = os.pidfd_open(guard)
    except ProcessLookupError:
        os._exit(70)
    if os.getppid() != guard:
        os._exit(70)
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, _end, "the guard has died", machine.cells, machine.processes)
    try:
        yield
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _end(why: str, cells: Cells, processes: Processes) -> None:
    """End this worker at once, and all its commands: it cannot answer for them any more."""
    _log.error("this worker ends with all its commands", why=why)
    cells.end_worker()
    processes.kill_everything()
    while tree.own_descendants():
        tree.kill_all(tree.own_descendants)
        _reap_children()
    os._exit(70)


def _reap_children() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def open_more_files(slots: int) -> None:
    """Let this process open as many files as it may be allowed; say so if that is too few for all slots."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        soft = most
    if 0 <= soft < slots * _FILES:  # negative: as many as one likes
        _log.warning("too few files may be open for so many commands: raise the limit", files=soft, slots=slots)


def keep_descriptors_private() -> None:
    """Whatever we were started with, no command inherits it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # names are numbers
        fd = int(name)
        if fd > 2 and Path(f"/proc/self/fd/{name}").exists():
            os.set_inheritable(fd, False)
