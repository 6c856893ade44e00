"""The processes of this worker: starting them, reading what they print, noticing when they and all their kind are gone.

    main process exits → its group is killed → what else descends from it is killed → `gone`

The pidfd decides when a command has ended; its pipes may be held open by others and decide nothing. Pipes are not
even watched before a command has lived for a moment: most have ended by then, and what they printed waits in the pipe.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
import threading
from functools import partial

import anyio

from scheduler.domain.clock import Clock
from scheduler.worker import linux
from scheduler.worker.capture import Capture, Stream
from scheduler.worker.cells import Cell
from scheduler.worker.orphans import Orphans
from scheduler.worker.page import LeasePage
from scheduler.worker.spawn import Child, Launch
from scheduler.worker.threads import SpawnThreads
from scheduler.worker.watch import EpollWatcher, LoopWatcher, Watcher

_READ = 64 * 1024
_TICK = 0.05
"""Seconds between ticks: a command's pipes are watched from its second tick on, one that prints too fast is read again
at the next."""
_BUDGET = 4 * 1024 * 1024
"""Bytes read from one command per tick: 80 MB/s, more than the store would take and less than a core can copy."""
_LONGEST_REST = 32
"""Reads of what is left in a pipe at the end: a foreign holder of its writing end must not keep us here."""


class LeaseLost(Exception):
    """The lease ran out before a command was started."""


class Process:
    """One started command and everything that descends from it.

    `exit_code` or `exit_signal` is known once the main process has ended; `gone` is done once nothing of the tree is
    left and all that it printed has been read. `cell` is the cgroup that it has to itself, if it has.
    """

    __slots__ = (
        "_all", "budget", "capture", "cell", "child", "exit_code", "exit_signal", "fence", "gone", "orphans",
        "out_of_memory", "pipes", "printed_at", "running",
    )  # fmt: skip

    def __init__(
        self, every: Processes, child: Child, fence: int, capture: Capture, gone: asyncio.Future[None], now: float
    ) -> None:
        self._all = every
        self.child = child
        self.fence = fence
        self.capture = capture
        self.gone = gone
        self.cell: Cell | None = None
        self.out_of_memory = False
        self.running = True
        self.exit_code: int | None = None
        self.exit_signal: int | None = None
        self.orphans: set[int] = set()
        self.pipes: dict[int, Stream] = {child.stdout: "stdout", child.stderr: "stderr"}
        self.budget = _BUDGET
        self.printed_at = now

    def signal(self, number: int) -> None:
        """Signal every process of the tree, and let stopped ones act on it."""
        self._all.signal(self, number)

    def kill(self) -> None:
        """Kill the whole tree at once, whatever it does."""
        self._all.kill(self)


class Processes:
    """Everything that this worker has started. Belongs to one event loop.

    `sole` says that every child of this process is a task's (a worker of its own): then children of unknown origin are
    killed too, otherwise they are left alone.
    """

    def __init__(self, threads: SpawnThreads, page: LeasePage, clock: Clock, *, sole: bool) -> None:
        self._page = page
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._starting = 0
        self._forbidden = False
        self._watcher: Watcher = (EpollWatcher if linux.SUPPORTED else LoopWatcher)(self._loop, self._settle)
        self._live: dict[int, Process] = {}  # by pid, until gone
        self._ended: list[Process] = []  # main process has ended since the last settling
        self._unwatched: list[tuple[Process, int]] = []  # pipes that are to be watched at the next tick …
        self._young: list[tuple[Process, int]] = []  # … and at the one after it
        self._ticker: asyncio.TimerHandle | None = None
        self._orphans = Orphans(self._live, self._watcher, self._freed, sole=sole) if linux.SUPPORTED else None
        self._size = bytearray(struct.calcsize("i"))

    @property
    def empty(self) -> bool:
        """Whether no process of any task is left."""
        return not self._starting and not self._live and not (self._orphans and self._orphans.alive)

    async def start(self, launch: Launch, fence: int, capture: Capture, cell: Cell | None = None) -> Process:
        """Start a command; `launch` takes it into `cell`. Raises SpawnError, or LeaseLost if it is ours no more."""
        # First this, then the look at the deadline: the guard does it the other way round.
        self._page.tree_empty = False
        self._starting += 1
        try:
            with anyio.CancelScope(shield=True):
                child = await self._threads.spawn(launch, self._check_lease)
        except BaseException:
            self._starting -= 1
            self._page.tree_empty = self.empty
            raise
        self._starting -= 1
        process = Process(self, child, fence, capture, self._loop.create_future(), self._clock.monotonic())
        process.cell = cell
        self._live[child.pid] = process
        if child.pidfd >= 0:
            self._watcher.add(child.pidfd, partial(self._on_exit, process))
        else:
            threading.Thread(target=self._wait_portably, args=(process,), daemon=True, name="wait").start()
        self._young += ((process, child.stdout), (process, child.stderr))
        self._tick_soon()
        return process

    def _check_lease(self) -> None:
        """Refuse to start anything once the lease has run out. Called from other threads."""
        if self._forbidden or 0 < self._page.deadline <= self._clock.boottime():
            raise LeaseLost

    def signal(self, process: Process, number: int) -> None:
        """Signal every process of the tree, and let stopped ones act on it."""
        if self._orphans is None:
            _signal_group(process.child.pid, number)
            return
        self._orphans.signal(process, number)
        if number not in {signal.SIGSTOP, signal.SIGTSTP}:
            self._orphans.signal(process, signal.SIGCONT)

    def kill(self, process: Process) -> None:
        """Kill the whole tree at once, whatever it does."""
        if process.running:
            _signal_group(process.child.pid, signal.SIGKILL)
        if process.cell is not None and process.cell.kill():
            return
        if self._orphans is not None:
            self._orphans.kill_tree(process)

    def kill_everything(self) -> None:
        """Kill all trees, and start no more, for when this worker must not go on."""
        self._forbidden = True
        for process in list(self._live.values()):
            self.kill(process)

    def look_after(self) -> None:
        """Find out about daemonised children; to be called now and then while anything runs."""
        if self._orphans is not None and not self.empty:
            self._orphans.look(again=True)
            self._settle()

    def close(self) -> None:
        """Stop watching; every tree has to be gone."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._orphans is not None:
            self._orphans.close()
        self._watcher.close()

    def _on_exit(self, process: Process) -> None:
        child = process.child
        _signal_group(child.pid, signal.SIGKILL)  # before it is reaped: until then nobody else can have this number
        if process.cell is not None:
            process.cell.kill()
        result = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        assert result is not None
        self._watcher.remove(child.pidfd)
        os.close(child.pidfd)
        process.running = False
        if result.si_code == os.CLD_EXITED:
            process.exit_code = result.si_status
        else:
            process.exit_signal = result.si_status
        self._ended.append(process)

    def _settle(self) -> None:
        """After a batch of events: look once for orphans of all that ended in it, release those that have none."""
        if self._orphans is not None and (self._ended or self._orphans.alive):
            self._orphans.look()
        ended, self._ended = self._ended, []
        for process in ended:
            if not process.orphans:
                self._release(process)
        if self.empty:
            self._page.tree_empty = True

    def _freed(self, process: Process) -> None:
        """Handle the end of the last orphan of a process."""
        if not process.running:
            self._ended.append(process)

    def _release(self, process: Process) -> None:
        if process.gone.done():
            return
        if self._live.get(process.child.pid) is process:
            del self._live[process.child.pid]
        for fd in list(process.pipes):
            self._read_rest(process, fd)
            self._close_pipe(process, fd)
        if process.cell is not None:
            process.out_of_memory = process.cell.out_of_memory
        process.gone.set_result(None)

    def _read_rest(self, process: Process, fd: int) -> None:
        for _ in range(_LONGEST_REST):
            fcntl.ioctl(fd, termios.FIONREAD, self._size)
            if not any(self._size):
                return
            process.capture.feed(process.pipes[fd], os.read(fd, _READ))

    def _on_readable(self, process: Process, fd: int) -> None:
        data = os.read(fd, _READ)
        if not data:
            self._close_pipe(process, fd)
            return
        process.capture.feed(process.pipes[fd], data)
        process.printed_at = self._clock.monotonic()
        process.budget -= len(data)
        if process.budget <= 0:
            self._watcher.remove(fd)
            self._unwatched.append((process, fd))
            self._tick_soon()

    def _close_pipe(self, process: Process, fd: int) -> None:
        del process.pipes[fd]
        self._watcher.remove(fd)
        os.close(fd)

    def _tick_soon(self) -> None:
        if self._ticker is None:
            self._ticker = self._loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        pipes, self._unwatched, self._young = self._unwatched, self._young, []
        if self._unwatched:
            self._tick_soon()
        for process, fd in pipes:
            if fd in process.pipes:
                process.budget = _BUDGET
                self._watcher.add(fd, partial(self._on_readable, process, fd))

    def _wait_portably(self, process: Process) -> None:
        _, status = os.waitpid(process.child.pid, 0)
        self._loop.call_soon_threadsafe(self._on_portable_exit, process, os.waitstatus_to_exitcode(status))

    def _on_portable_exit(self, process: Process, code: int) -> None:
        _signal_group(process.child.pid, signal.SIGKILL)
        process.running = False
        if code >= 0:
            process.exit_code = code
        else:
            process.exit_signal = -code
        self._ended.append(process)
        self._settle()


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nobody is left in it, or only what may not be signalled
        return
