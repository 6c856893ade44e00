"""The guard: a small parent of the worker that outlives it and lets no task outlive the lease.

`dts-worker` starts here. The guard starts the worker proper, shares a page of memory with it (`page.LeasePage`) and
waits for one of four things:

- the worker ends: every process of its tasks is killed at once, then, unless it was meant to end, a new worker starts
  and is told (`DTS_REPLACES`) that nothing of the old incarnation is left;
- the lease is about to run out: the tasks are asked to end;
- the lease has run out: the worker is killed first and its tasks second, unless it says that it has none;
- a signal to stop: passed on to the worker, which drains.

It needs no word from the worker to find the tasks: they descend from it, and are in its cgroup where it could make
one. It imports nothing but the standard library and the few modules of ours that do likewise, and as little of both as
possible, so that it is small and has nothing to go wrong.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from scheduler.domain.guarding import Demand, demand
from scheduler.failpoints import Point, reach_now
from scheduler.lifeline import INTERRUPTED, LEFT, call_ourselves, die_with_parent, end_when_interrupted
from scheduler.stderr import say
from scheduler.worker import cgroups, linux, tree
from scheduler.worker.page import VARIABLE, LeasePage

REPLACES = "DTS_REPLACES"
"""Environment variable of the worker: the incarnation (hex) before it, of whose tasks nothing is left."""

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 30.0
_STEADY = 60.0
"""A worker that lived so long (seconds) is restarted without delay."""

_FOR_GOOD = {0, LEFT, INTERRUPTED}
"""Exit codes of a worker that is not started again: it was stopped, at once even, or told to leave."""

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks the guard to end."""

WORKER = (sys.executable, "-m", "scheduler.cli.worker")
"""The worker proper; the guard's own arguments are appended."""


def main() -> int:
    """Entry point of `dts-worker`; return its exit code."""
    end_when_interrupted()
    die_with_parent()
    call_ourselves("dts-guard")
    if not linux.SUPPORTED:  # development only: nobody watches over this worker
        os.execv(WORKER[0], [*WORKER, *sys.argv[1:]])
    return Guard([*WORKER, *sys.argv[1:]]).run()


class Guard:
    """Watches over one worker at a time. `command` starts it."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._stopping = False
        self._pid = 0
        self._pidfd = -1
        self._page = LeasePage.new()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._timer = linux.BootTimer()
        self._cgroups: cgroups.Subtree | None = None

    def run(self) -> int:
        """Keep a worker running until it ends by itself; return the exit code."""
        linux.become_subreaper()
        for number in _STOPS:
            signal.signal(number, self._pass_on)
        self._cgroups = cgroups.Subtree.make()
        try:
            return self._keep_running()
        finally:
            if self._cgroups is not None:
                self._cgroups.remove()

    def _keep_running(self) -> int:
        replaces: bytes | None = None
        delay = _FIRST_DELAY
        code = 0
        while True:
            started = time.monotonic()
            # Who asks us to end while a worker starts is heard when there is one to tell: never in between.
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
            if self._stopping:
                return code
            self._start(replaces)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            code = self._watch()
            reach_now(Point.WORKER_ENDED)
            self._empty_tree()
            reach_now(Point.TREE_EMPTY)
            replaces = self._page.incarnation or replaces
            if self._stopping or replaces is None or code in _FOR_GOOD:
                return code
            delay = _FIRST_DELAY if time.monotonic() - started > _STEADY else min(delay * 2, _LONGEST_DELAY)
            say(f"dts-worker: the worker ended with {code}; a new one starts")
            self._rest(delay)

    def _start(self, replaces: bytes | None) -> None:
        self._page.incarnation = None
        self._page.hold_until(0.0, ask_at=0.0)
        self._page.tree_empty = True
        self._page.forbidden = False
        self._page.asked = 0.0
        self._timer.set(0)
        memory_fd, wake_fd = os.dup(self._page.memory_fd), os.dup(self._wake_write)
        environment = dict(os.environ)
        environment[VARIABLE] = f"{memory_fd},{wake_fd},{os.getpid()}"
        environment.pop(REPLACES, None)
        if replaces is not None:
            environment[REPLACES] = replaces.hex()
        os.set_inheritable(memory_fd, True)
        os.set_inheritable(wake_fd, True)
        environment.pop(cgroups.VARIABLE, None)
        self._enter("work/worker")  # what is started is where its starter is
        if self._cgroups is not None:
            environment[cgroups.VARIABLE] = self._cgroups.variable
        # A process group of its own: Ctrl-C on a terminal reaches the guard, which passes it on, once.
        self._pid = os.posix_spawn(self._command[0], self._command, environment, setpgroup=0, setsigmask=())
        self._enter("guard")
        self._pidfd = os.pidfd_open(self._pid)
        os.close(memory_fd)
        os.close(wake_fd)

    def _enter(self, child: str) -> None:
        if self._cgroups is not None:
            try:
                self._cgroups.enter(child)
            except OSError as error:  # somebody has taken it away: then without
                self._cgroups = None
                say(f"dts-worker: the cgroup {child} cannot be used: {error}")

    def _watch(self) -> int:
        """Wait until the worker has ended, holding it to its lease; return its exit code (128 + signal if killed)."""
        poll = select.poll()
        for fd in (self._pidfd, self._wake_read, self._timer.fd):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._pidfd in ready:
                break
            for fd in ready:
                _drain(fd)
            self._judge()
        pidfd, self._pidfd = self._pidfd, -1
        os.close(pidfd)
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _judge(self) -> None:
        """Look at the lease, do what it demands, and set the timer for the next look."""
        deadline = self._page.deadline
        what, look_at = demand(
            time.clock_gettime(time.CLOCK_BOOTTIME),
            deadline=deadline,
            ask_at=self._page.ask_at,
            asked=self._page.asked,
            tree_empty=self._page.tree_empty,
        )
        self._timer.set(look_at)
        if what is Demand.ASK:
            self._page.asked = deadline  # before they hear of it: the worker is to know why they ended
            for stat in self._tasks():
                tree.send(stat, signal.SIGTERM)
        elif what is Demand.KILL:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            reach_now(Point.WORKER_KILLED)
            if self._cgroups is not None:
                self._cgroups.kill()
            tree.kill_all(self._tasks)

    def _tasks(self) -> list[tree.Stat]:
        return [stat for stat in tree.own_descendants() if stat.pid != self._pid]

    def _empty_tree(self) -> None:
        """Kill and reap all that descends from us, until nothing does."""
        while True:
            if self._cgroups is not None:
                self._cgroups.kill()
            tree.kill_all(tree.own_descendants)
            try:
                os.waitpid(-1, 0)  # what is killed becomes our child, at the latest when its parent dies
            except ChildProcessError:
                break
        if self._cgroups is not None:
            self._cgroups.clear()

    def _pass_on(self, number: int, _frame: object) -> None:
        self._stopping = True
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM if number == signal.SIGHUP else number)
            except ProcessLookupError:  # it has just ended
                return

    def _rest(self, seconds: float) -> None:
        """Wait before the next worker, unless told to stop meanwhile."""
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))


def _drain(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        return


if __name__ == "__main__":
    sys.exit(main())
