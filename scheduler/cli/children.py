"""Role processes as children of `dts up`: waited for, started again when they die, stopped in good order."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterable
from typing import Final

import anyio
import anyio.to_thread

from scheduler.cli.launch import Launched
from scheduler.lifeline import LEFT
from scheduler.service import STEADY, sleep
from scheduler.telemetry import get_logger

_SHORT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What passes: no descriptor, or no memory for one, at the moment."""

_log = get_logger("up")


class Child:
    """A child process by its id: one that we forked, or one that `subprocess` started for us."""

    def __init__(self, launched: Launched) -> None:
        self.pid = launched.pid
        self.code: int | None = None
        self._popen = launched.popen
        self._waiting = anyio.Lock()

    async def wait(self) -> int:
        """Return its exit code (negative: the signal), when it has ended."""
        async with self._waiting:
            if self.code is None:
                if hasattr(os, "pidfd_open"):
                    handle = await _handle(self.pid)
                    try:
                        await anyio.wait_readable(handle)
                    finally:
                        os.close(handle)
                    self._reap()
                else:
                    await anyio.to_thread.run_sync(self._reap, abandon_on_cancel=True)
            assert self.code is not None
            return self.code

    def send(self, number: signal.Signals) -> None:
        """Signal the process, if it has not ended."""
        if self.code is None:
            os.kill(self.pid, number)

    def kill_session(self) -> None:
        """Kill the process and what it started in its own session."""
        if self.code is None:
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        if self._popen is not None:
            self.code = self._popen.wait()
        else:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


async def _handle(pid: int) -> int:
    """Return a descriptor that becomes readable when the process ends, once there is one to be had."""
    failures = 0
    while True:
        try:
            return os.pidfd_open(pid)
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            failures += 1
            _log.error("role cannot be watched", pid=pid, error=str(error))
            await sleep(STEADY.delay(failures))


class Children:
    """The roles of one supervisor."""

    def __init__(self, respawn: Callable[[str], Launched], on_fatal: Callable[[str, int], None]) -> None:
        self._respawn = respawn
        self._on_fatal = on_fatal
        self._children: dict[str, Child] = {}
        self._stopping: set[str] = set()

    def add(self, name: str, launched: Launched) -> None:
        """Take charge of a running child."""
        self._children[name] = Child(launched)

    @property
    def names(self) -> list[str]:
        """Return the names in the order in which they were added."""
        return list(self._children)

    async def keep(self, name: str, fatal: Iterable[int]) -> None:
        """Start `name` again whenever it ends, until it is stopped or leaves; exit codes in `fatal` end everything."""
        failures = 0
        while True:
            code = await self._children[name].wait()
            if name in self._stopping:
                return
            if code == LEFT:
                _log.warning("role has left, and is not started again", role_name=name)
                return
            _log.warning("role ended", role_name=name, code=code)
            if code in fatal:
                self._on_fatal(name, code)
                return
            started: Launched | None = None
            while started is None:
                failures += 1
                await sleep(STEADY.delay(failures))
                if name in self._stopping:
                    return
                try:
                    started = self._respawn(name)
                except OSError as error:  # too many processes, or no memory: others may leave some
                    _log.error("role does not start again", role_name=name, error=str(error))
            self._children[name] = Child(started)

    async def stop(self, names: Iterable[str], seconds: float | None) -> None:
        """Ask children to drain, all at once; kill those that have not ended after `seconds` (None: none of them)."""
        wanted = list(names)
        self._stopping.update(wanted)
        chosen = [self._children[name] for name in wanted]
        for child in chosen:
            child.send(signal.SIGTERM)
        with anyio.move_on_after(seconds):
            for child in chosen:
                await child.wait()
        for child in chosen:
            if child.code is None:
                _log.error("role had to be killed", pid=child.pid)
                child.kill_session()
                await child.wait()
