"""A spawner: a small process that starts the worker's commands and awaits their ends.

`posix_spawn` returns when the child executes, and on a busy machine the child waits for a processor first; meanwhile
the worker's event loop must go on claiming and reporting. Threads for it would cost more than the spawning itself:
each system call of theirs would queue for the interpreter lock. So commands are the children of processes with an
interpreter to themselves, which the worker tells what to start (`orders`).

Most commands end at once. Of those the worker hears twice, in two lines, and never holds a descriptor; the pipes of
those that live for longer are passed on to it.

All work is done on a second thread, which becomes other users to start their commands. The first keeps the worker's
credentials: signals to a process are judged by it, so that `kill -9 -1` from a task cannot hit a spawner of root's. One
that is aimed at the second thread's id while that is the task's user does (docs/security.md).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import threading
from collections import deque
from contextlib import suppress

from scheduler.domain.clock import SystemClock
from scheduler.failpoints import Point, reach_now
from scheduler.lifeline import call_ourselves
from scheduler.worker import linux, tree
from scheduler.worker.orders import (
    MOST_DESCRIPTORS,
    Ended,
    Event,
    Failed,
    Frames,
    Living,
    Order,
    Refused,
    Started,
    as_sent,
    order_of,
)
from scheduler.worker.page import LeasePage
from scheduler.worker.spawn import Child, Spawner, SpawnError

SOCKET_FD, PAGE_FD = 10, 11
"""Where the worker has put its socket and the memory of the lease's page."""

YOUNG = 0.05
"""Seconds after which the worker gets a command's pipes: most commands have ended by then."""

_TOGETHER = 8
"""Events that are worth a message while there is more to start."""
_READ = 64 * 1024
_PORTABLE_LOOK = 0.01
"""Seconds between looks for ended commands where no descriptor tells of them."""


class _Command:
    __slots__ = ("child", "id", "young")

    def __init__(self, number: int, child: Child) -> None:
        self.id = number
        self.child = child
        self.young = True  # its pipes are ours


class Server:
    """Obeys orders until the worker closes the connection."""

    def __init__(self, connection: socket.socket, page: LeasePage, directory: str) -> None:
        self._frames = Frames(connection, order_of)
        self._page = page
        self._clock = SystemClock()
        self._spawner = Spawner(directory)
        self._orders: deque[Order] = deque()
        self._running: dict[int, _Command] = {}  # by pid
        self._young: deque[tuple[float, _Command]] = deque()
        self._events: list[Event] = []
        self._passed_on: list[int] = []  # descriptors that go with the events
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._children = linux.child_signals() if linux.SUPPORTED else -1
        if self._children >= 0:
            self._poll.register(self._children, select.POLLIN)

    def run(self) -> None:
        """Work until the connection ends."""
        while True:
            if not self._orders:
                self._flush()
                if not self._wait():
                    return
            if self._orders:
                self._start(self._orders.popleft())
            self._reap()
            self._pass_on_pipes()
            if len(self._events) >= _TOGETHER:
                self._flush()

    def _wait(self) -> bool:
        """Wait for orders, ends, or a command's coming of age; False if the connection has ended."""
        patience = None
        if self._young:
            patience = max(0.0, self._young[0][0] + YOUNG - self._clock.monotonic())
        if self._children < 0 and self._running:
            patience = _PORTABLE_LOOK if patience is None else min(patience, _PORTABLE_LOOK)
        for fd, _ in self._poll.poll(None if patience is None else patience * 1000 + 1):
            if fd == self._children:
                os.read(fd, 4096)
            else:
                orders = self._frames.receive()
                if orders is None:
                    return False
                self._orders.extend(orders)
        return True

    def _start(self, order: Order) -> None:
        cell = [self._frames.descriptors.popleft() for _ in range(order.cell)]
        reach_now(Point.ORDERED)
        try:
            if self._page.forbidden or 0 < self._page.deadline <= self._clock.boottime():
                self._events.append(Refused(order.id))
                return
            child = self._spawner.spawn(order, cell)
        except SpawnError as error:
            self._events.append(Failed(order.id, error.what, str(error)))
        else:
            reach_now(Point.SPAWNED)
            command = self._running[child.pid] = _Command(order.id, child)
            self._young.append((self._clock.monotonic(), command))
            self._events.append(Started(order.id, child.pid))
        finally:
            for fd in cell:
                os.close(fd)

    def _reap(self) -> None:
        while self._running:
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if info is None:
                return
            pid = info.si_pid
            tree.signal_group(pid, signal.SIGKILL)  # before it is reaped: until then nobody else can have this number
            os.waitid(os.P_PID, pid, os.WEXITED)
            reach_now(Point.REAPED)
            command = self._running.pop(pid)
            by_itself = info.si_code == os.CLD_EXITED
            code, number = (info.si_status, None) if by_itself else (None, info.si_status)
            if command.young:
                command.young = False
                out, err = self._rests(command.child.stdout, command.child.stderr)
                self._events.append(Ended(command.id, code, number, out, err))
            else:
                self._events.append(Ended(command.id, code, number))

    def _rests(self, *fds: int) -> list[bytes | None]:
        """Return what is left in the pipes and close them; None for one that somebody holds: the worker gets it."""
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        flags = dict(poll.poll(0))
        rests: list[bytes | None] = []
        for fd in fds:
            flag = flags.get(fd, 0)
            if not flag & select.POLLHUP:
                self._passed_on.append(fd)
                rests.append(None)
                continue
            rest = b""
            with suppress(BlockingIOError):  # whoever holds the reading end too has taken what was left
                while flag & select.POLLIN and (data := os.read(fd, _READ)):
                    rest += data
            os.close(fd)
            rests.append(rest)
        return rests

    def _pass_on_pipes(self) -> None:
        """Give the worker the pipes of commands that are no longer young, and forget those that have ended."""
        young = self._young
        while young:
            since, command = young[0]
            if command.young:
                if since + YOUNG > self._clock.monotonic():
                    return
                command.young = False
                self._passed_on += (command.child.stdout, command.child.stderr)
                self._events.append(Living(command.id))
                if len(self._passed_on) >= MOST_DESCRIPTORS - 2:
                    self._flush()
            young.popleft()

    def _flush(self) -> None:
        if not self._events:
            return
        frame = memoryview(self._frames.encode(map(as_sent, self._events)))
        descriptors = self._passed_on
        self._events, self._passed_on = [], []
        while frame:
            frame = frame[self._frames.send(frame, descriptors) :]
            for fd in descriptors:
                os.close(fd)
            descriptors = []


def main(directory: str, files: int) -> int:
    """Serve the worker that has started this process; return the exit code. Commands may open so many `files`."""
    call_ourselves("dts-spawner")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker decides when this ends; commands get the default back
    if linux.SUPPORTED:
        linux.forbid_inspection()  # orders hold secrets
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # read from a descriptor instead
    os.closerange(3, SOCKET_FD)  # whatever the worker was started with, no command inherits it
    os.closerange(PAGE_FD + 1, os.sysconf("SC_OPEN_MAX"))
    while os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) < SOCKET_FD:
        pass  # no descriptor to be given on may have a number that it is to be given as
    connection = socket.socket(fileno=SOCKET_FD)
    os.set_inheritable(SOCKET_FD, False)
    server = Server(connection, LeasePage.mapped(PAGE_FD), directory)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            server.run()
        except ConnectionError:  # the worker has ended
            return
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    sys.setswitchinterval(1e6)  # `bounded` forks with the interpreter lock: nobody may be asking for it then
    thread = threading.Thread(target=work, name="spawn")
    thread.start()
    thread.join()
    if linux.SUPPORTED:  # the guard does it too, unless somebody has killed it together with the worker
        tree.kill_all(tree.own_descendants)
    if failures:
        raise failures[0]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
