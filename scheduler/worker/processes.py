"""The processes of this worker: starting them, reading what they print, noticing when they and all their kind are gone.

    main process exits → its group is killed → what else descends from it is killed → `gone`

The end of its main process decides when a command has ended; its pipes may be held open by others and decide nothing.
They are not even read before a command has lived for a moment: most have ended by then, and what they printed waits in
the pipe. Until then, and for all that a parent does, commands are the spawners' (`spawner`).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable
from functools import partial

import anyio

from scheduler.domain.clock import Clock
from scheduler.worker import linux, tree
from scheduler.worker.capture import Capture, Stream
from scheduler.worker.cells import Cell
from scheduler.worker.launch import Launch
from scheduler.worker.orders import Ended
from scheduler.worker.orphans import Orphans
from scheduler.worker.page import LeasePage
from scheduler.worker.spawners import Spawners
from scheduler.worker.watch import EpollWatcher, LoopWatcher, Watcher

_READ = 64 * 1024
_TICK = 0.05
"""Seconds between ticks: a command that prints too fast is read again at the next."""
_BUDGET = 4 * 1024 * 1024
"""Bytes read from one command per tick: 80 MB/s, more than the store would take and less than a core can copy."""
_LONGEST_REST = 32
"""Reads of what is left in a pipe at the end: a foreign holder of its writing end must not keep us here."""


class Process:
    """One started command and everything that descends from it.

    `exit_code` or `exit_signal` is known once the main process has ended; `gone` is done once nothing of the tree is
    left and all that it printed has been read. `cell` is the cgroup that it has to itself, if it has.
    """

    __slots__ = (
        "_all", "budget", "capture", "cell", "exit_code", "exit_signal", "fence", "gone", "orphans", "out_of_memory",
        "pid", "pipes", "printed_at", "running",
    )  # fmt: skip

    def __init__(
        self, every: Processes, fence: int, capture: Capture, gone: asyncio.Future[None], cell: Cell | None
    ) -> None:
        self._all = every
        self.pid = 0
        self.fence = fence
        self.capture = capture
        self.gone = gone
        self.cell = cell
        self.out_of_memory = False
        self.running = False
        self.exit_code: int | None = None
        self.exit_signal: int | None = None
        self.orphans: set[int] = set()
        self.pipes: dict[int, Stream] = {}
        self.budget = _BUDGET
        self.printed_at = 0.0

    def started(self, pid: int) -> None:
        """Note that it executes."""
        self.pid = pid
        self.running = True
        self._all.started(self)

    def living(self, stdout: int, stderr: int) -> None:
        """Read from now on what it prints."""
        self.pipes = {stdout: "stdout", stderr: "stderr"}
        self._all.watch(self)

    def ended(self, end: Ended, held: list[int]) -> None:
        """Note how its main process ended, and what it printed."""
        self.running = False
        self.exit_code, self.exit_signal = end.code, end.signal
        rests: tuple[tuple[Stream, bytes | None], ...] = (("stdout", end.stdout), ("stderr", end.stderr))
        for stream, rest in rests:
            if rest is None:
                self.pipes[held.pop(0)] = stream
            elif rest:
                self.capture.feed(stream, rest)
        self._all.ended(self)

    def signal(self, number: int) -> None:
        """Signal every process of the tree, and let stopped ones act on it."""
        self._all.signal(self, number)

    def kill(self) -> None:
        """Kill the whole tree in a moment, whatever it does."""
        self._all.kill(self)


class Processes:
    """Everything that this worker has started. Belongs to one event loop.

    `sole` says that every child of this process is a task's (a worker of its own): then children of unknown origin are
    killed too, otherwise they are left alone.
    """

    def __init__(self, directory: str, page: LeasePage, clock: Clock, *, sole: bool, lost: Callable[[], None]) -> None:
        self._page = page
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._spawners = Spawners(directory, page, clock, after=self._settle, lost=lost)
        self._starting = 0
        self._watcher: Watcher = (EpollWatcher if linux.SUPPORTED else LoopWatcher)(self._loop, self._settle)
        self._live: dict[int, Process] = {}  # by pid, until gone
        self._ended: list[Process] = []  # main process has ended since the last settling
        self._doomed: list[Process] = []  # to be killed at the end of this turn of the event loop
        self._unwatched: list[tuple[Process, int]] = []  # pipes that are to be watched again at the next tick
        self._ticker: asyncio.TimerHandle | None = None
        self._orphans = (
            Orphans(self._live, self._watcher, self._freed, self._spawners, sole=sole) if linux.SUPPORTED else None
        )
        self._size = bytearray(struct.calcsize("i"))

    @property
    def empty(self) -> bool:
        """Whether no process of any task is left."""
        return not self._starting and not self._live and not (self._orphans and self._orphans.alive)

    def expect(self) -> None:
        """Take note that commands are about to be started."""
        self._spawners.expect()

    async def start(self, launch: Launch, fence: int, capture: Capture, cell: Cell | None = None) -> Process:
        """Start a command; `launch` takes it into `cell`. Raises SpawnError, or LeaseLost if it is ours no more."""
        # First this, then the spawner's look at the deadline: the guard does it the other way round.
        self._page.tree_empty = False
        self._starting += 1
        process = Process(self, fence, capture, self._loop.create_future(), cell)
        try:
            with anyio.CancelScope(shield=True):
                await self._spawners.spawn(launch, process)
        except BaseException:
            self._starting -= 1
            self._page.tree_empty = self.empty
            raise
        return process

    def started(self, process: Process) -> None:
        """Note that a command executes."""
        self._starting -= 1
        self._live[process.pid] = process
        process.printed_at = self._clock.monotonic()

    def watch(self, process: Process) -> None:
        """Read the command's pipes."""
        for fd in process.pipes:
            self._watcher.add(fd, partial(self._on_readable, process, fd))

    def ended(self, process: Process) -> None:
        """Note that a command's main process has ended, and its group is killed."""
        if process.cell is not None:
            process.cell.kill()
        self._ended.append(process)

    def signal(self, process: Process, number: int) -> None:
        """Signal every process of the tree, and let stopped ones act on it."""
        if self._orphans is None:
            if process.running:
                tree.signal_group(process.pid, number)
            return
        goes_on = () if number in {signal.SIGSTOP, signal.SIGTSTP} else (signal.SIGCONT,)
        self._orphans.signal(process, number, *goes_on)

    def kill(self, process: Process) -> None:
        """Kill the whole tree, whatever it does: in this turn of the event loop, or right after it.

        To look at every process of a large machine takes tenths of a second: all that are killed in the same turn are
        found together, or the end of many commands would cost the lease.
        """
        if process.cell is not None and process.cell.kill():
            return
        if self._orphans is None:
            if process.running:
                tree.signal_group(process.pid, signal.SIGKILL)
            return
        if not self._doomed:
            self._loop.call_soon(self._kill_doomed)
        self._doomed.append(process)

    def kill_everything(self) -> None:
        """Kill all trees now, and start no more, for when this worker must not go on."""
        self._page.forbidden = True
        for process in list(self._live.values()):
            self.kill(process)
        self._kill_doomed()

    def look_after(self) -> None:
        """Find out about daemonised children and stuck spawners; to be called now and then while anything runs."""
        self._spawners.look_after()
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
        self._spawners.close()

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

    def _kill_doomed(self) -> None:
        doomed = [process for process in self._doomed if not process.gone.done()]
        self._doomed.clear()
        if self._orphans is not None and doomed:
            self._orphans.kill_trees(doomed)

    def _freed(self, process: Process) -> None:
        """Handle the end of the last orphan of a process."""
        if not process.running:
            self._ended.append(process)

    def _release(self, process: Process) -> None:
        if process.gone.done():
            return
        if self._live.get(process.pid) is process:
            del self._live[process.pid]
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
            data = _read(fd)
            if not data:
                return
            process.capture.feed(process.pipes[fd], data)

    def _on_readable(self, process: Process, fd: int) -> None:
        data = _read(fd)
        if data is None:
            return
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
        pipes, self._unwatched = self._unwatched, []
        for process, fd in pipes:
            if fd in process.pipes:
                process.budget = _BUDGET
                self._watcher.add(fd, partial(self._on_readable, process, fd))


def _read(fd: int) -> bytes | None:
    """Return what a pipe holds, nothing at its end; None if somebody else has read it just now."""
    try:
        return os.read(fd, _READ)
    except BlockingIOError:
        return None
