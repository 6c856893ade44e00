"""The threads that commands are started from.

`posix_spawn` returns when the child executes, and on a busy machine the child waits for a processor first. So it is
called from threads of its own, without the interpreter lock: the event loop goes on claiming and reporting meanwhile.
Each thread has its own credentials, working directory and umask, see `identity.Disguise`. The first thread of the
process keeps those of the worker: signals to a process are judged by it, so that `kill -9 -1` from a task cannot hit a
worker that runs as root. Orphans become children of that first thread, which tells them from commands started here.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from scheduler.worker import linux
from scheduler.worker.spawn import Child, Launch, Spawner

_SWITCH = 0.0001
"""Seconds after which a thread that has started a command may ask the loop for the interpreter lock."""


class _Job(msgspec.Struct, gc=False):
    launch: Launch
    check: Callable[[], None]
    started: asyncio.Future[Child]
    child: Child | None = None
    error: BaseException | None = None


class SpawnThreads:
    """Starts commands, at most `count` at the same moment, one where threads have no directories of their own.

    Belongs to the event loop that made it. Raises OSError if `directory` cannot be entered.
    """

    def __init__(self, directory: str, count: int = 3) -> None:
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._started: deque[_Job] = deque()
        self._told = False  # the loop knows that something has started, and has not looked yet
        sys.setswitchinterval(_SWITCH)
        if self._add():
            for _ in range(count - 1):
                self._add()

    async def spawn(self, launch: Launch, check: Callable[[], None]) -> Child:
        """Start the command, unless `check` raises, which is called at the last moment and on another thread.

        Raises SpawnError; nothing is left behind then. Must not be cancelled: the command may have started already.
        """
        job = _Job(launch, check, self._loop.create_future())
        self._jobs.put(job)
        return await job.started

    def close(self) -> None:
        """End the threads; nothing may be starting."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _deliver(self) -> None:
        self._told = False  # before looking: what starts from now on tells again
        while self._started:
            job = self._started.popleft()
            if job.error is not None:
                job.started.set_exception(job.error)
            elif job.child is not None:
                job.started.set_result(job.child)

    def _add(self) -> bool:
        """Start a thread, and say whether it has a working directory and umask of its own."""
        ready: queue.SimpleQueue[bool | OSError] = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, args=(ready,), name=f"spawn {len(self._threads) + 1}", daemon=True)
        thread.start()
        outcome = ready.get()
        if isinstance(outcome, OSError):
            raise outcome
        self._threads.append(thread)
        return outcome

    def _work(self, ready: queue.SimpleQueue[bool | OSError]) -> None:
        try:
            apart = _have_own_directory()
            spawner = Spawner(self._directory)
        except OSError as error:
            ready.put(error)
            return
        ready.put(apart)
        while (job := self._jobs.get()) is not None:
            try:
                job.check()
                job.child = spawner.spawn(job.launch)
            except BaseException as error:  # noqa: BLE001  # raised again where it was asked for
                job.error = error
            self._started.append(job)
            if not self._told:
                self._told = True
                self._loop.call_soon_threadsafe(self._deliver)
        spawner.close()


def _have_own_directory() -> bool:
    if not linux.SUPPORTED:
        return False
    try:
        linux.unshare_directory()
    except PermissionError:  # as in containers, whose usual filter of system calls knows no harmless `unshare`
        return False
    return True
