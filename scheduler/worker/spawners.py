"""The spawners of a worker: processes of its own that start its commands, see `spawner`.

Orders that come together go out together, each to the spawner that has fewest to do. A spawner that does not answer
for a while is stuck in a start (a program on a file system that hangs): another one takes its place meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from scheduler.domain.clock import Clock
from scheduler.failpoints import VARIABLE as FAILPOINTS
from scheduler.telemetry import get_logger
from scheduler.worker.launch import Launch
from scheduler.worker.orders import DescriptorsLost, Ended, Event, Failed, Frames, Living, Order, Started, event_of
from scheduler.worker.page import LeasePage
from scheduler.worker.spawn import DEFAULT_PATH, SpawnError
from scheduler.worker.spawner import PAGE_FD, SOCKET_FD

_USUAL = 2
"""Spawners for a worker that has much to start, one of which waits for a processor while the other works."""
_MUCH = 4
"""Orders without an answer that are worth another spawner; an idle worker does with one."""
_MOST = 8
_STUCK = 2.0
"""Seconds without an answer after which a spawner gets no orders before it has answered."""

_log = get_logger("worker")


class LeaseLost(Exception):
    """The lease ran out before a command was started."""


class Audience(Protocol):
    """Who hears of a command: first `started`, then maybe `living`, then `ended`."""

    def started(self, pid: int) -> None:
        """Hear that it executes."""
        ...

    def living(self, stdout: int, stderr: int) -> None:
        """Hear that it has lived for a while, and take the reading ends of its pipes."""
        ...

    def ended(self, end: Ended, held: list[int]) -> None:
        """Hear that its main process has ended, and take the pipes of the streams that `end` has no bytes of."""
        ...


class _Awaited:
    __slots__ = ("answer", "audience", "since")

    def __init__(self, audience: Audience, answer: asyncio.Future[None], since: float) -> None:
        self.audience = audience
        self.answer = answer
        self.since = since


class _Spawner:
    """One of them, at the other end of a socket. `lost` is called when it has died or cannot be heard any more."""

    def __init__(
        self, directory: str, files: int, page: LeasePage, after: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._after = after
        self._lost = lost
        self._orders: list[Order] = []
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._awaited: dict[int, _Awaited] = {}  # orders without an answer
        self._running: dict[int, Audience] = {}
        self.stuck = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self.pid = _start(theirs.fileno(), page.memory_fd, directory, files)
            except OSError:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self._frames = Frames(self._socket, event_of)
        self._loop.add_reader(self._socket.fileno(), self._receive)

    @property
    def burden(self) -> tuple[bool, int]:
        """What it has to do yet; the least comes first."""
        return self.stuck, len(self._awaited)

    @property
    def first_unanswered(self) -> float:
        """The number of its oldest unanswered order; infinite if there is none."""
        return next(iter(self._awaited), math.inf)

    @property
    def waits_since(self) -> float:
        """Since when its oldest unanswered order waits (monotonic seconds); infinite if none does."""
        return next((awaited.since for awaited in self._awaited.values()), math.inf)

    @property
    def idle(self) -> bool:
        """Whether it waits for orders and ends."""
        return not self._awaited and not self._unsent

    def wake(self) -> None:
        """Send no orders."""
        self._send([], ())

    def give(self, order: Order, descriptors: Sequence[int], awaited: _Awaited) -> None:
        """Order a command; `flush` must follow. Raises SpawnError, and nothing is ordered then."""
        copies = _copies(descriptors) if descriptors else ()
        self._awaited[order.id] = awaited
        if copies:
            self.flush()
            self._send([order], copies)
        else:
            self._orders.append(order)

    def flush(self) -> None:
        """Send what was ordered."""
        if self._orders:
            orders, self._orders = self._orders, []
            self._send(orders, ())

    def close(self) -> None:
        """Let it end, and see it off."""
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        for fd in self._frames.descriptors:
            os.close(fd)
        self._socket.close()
        os.kill(self.pid, signal.SIGKILL)  # should it be stuck
        os.waitpid(self.pid, 0)

    def _send(self, orders: list[Order], descriptors: Sequence[int]) -> None:
        self._unsent.append((memoryview(self._frames.encode(map(tuple, orders))), descriptors))
        if len(self._unsent) == 1:
            self._write()

    def _write(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            try:
                sent = self._frames.send(data, descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except ConnectionError:  # it has died, which reading tells
                return
            for fd in descriptors:
                os.close(fd)
            if sent < len(data):
                self._unsent[0] = (data[sent:], ())
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _receive(self) -> None:
        try:
            events = self._frames.receive()
        except BlockingIOError:
            return
        except ConnectionError:
            events = None
        except DescriptorsLost as error:
            _log.error("what a spawner says was lost", error=str(error))
            events = None
        if events is None:
            self._loop.remove_reader(self._socket.fileno())
            self._lost()
            return
        for event in events:
            self._handle(event)
        self._after()

    def _handle(self, event: Event) -> None:
        number = event.id
        if isinstance(event, Started):
            awaited = self._awaited.pop(number)
            self._running[number] = awaited.audience
            awaited.audience.started(event.pid)
            awaited.answer.set_result(None)
        elif isinstance(event, Ended):
            held = [self._frames.descriptors.popleft() for stream in (event.stdout, event.stderr) if stream is None]
            self._running.pop(number).ended(event, held)
        elif isinstance(event, Living):
            take = self._frames.descriptors.popleft
            self._running[number].living(take(), take())
        else:
            error = SpawnError(event.what, event.text) if isinstance(event, Failed) else LeaseLost()
            self._awaited.pop(number).answer.set_exception(error)


class Spawners:
    """Starts commands and tells of their ends. Belongs to the event loop that made it.

    `after` is called after each batch of events; `lost` when a spawner has died or cannot be heard: what its commands
    do is not known any more. Commands start in `directory` unless they ask for another, and may open as many files as
    this process may by now, whatever it may later.
    """

    def __init__(
        self, directory: str, page: LeasePage, clock: Clock, *, after: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._make = partial(_Spawner, directory, files, page, after, lost)
        self._clock = clock
        self.given = 0
        self._flushing = False
        self._short = False  # there was nothing left for another spawner
        self._spawners = [self._make()]

    def owns(self, pid: int) -> bool:
        """Whether this is a spawner's process."""
        return any(spawner.pid == pid for spawner in self._spawners)

    @property
    def answered(self) -> float:
        """Up to which of the `given` orders every one has been answered."""
        return min(self.given, *(spawner.first_unanswered - 1 for spawner in self._spawners))

    async def spawn(self, launch: Launch, audience: Audience) -> None:
        """Start a command, of which `audience` hears from now on.

        Raises SpawnError or LeaseLost, and nothing is left behind then. Must not be cancelled: the command may have
        started already.
        """
        order = order_for(launch, self.given + 1)
        self.given += 1
        answer: asyncio.Future[None] = self._loop.create_future()
        spawner = min(self._spawners, key=lambda spawner: spawner.burden)
        if len(self._spawners) < _USUAL and spawner.burden >= (False, _MUCH):
            spawner = self._another() or spawner
        spawner.give(order, launch.cell, _Awaited(audience, answer, self._clock.monotonic()))
        if not self._flushing:  # the first of a batch goes at once, the others together
            self._flushing = True
            spawner.flush()
            self._loop.call_soon(self._flush)
        await answer

    def expect(self) -> None:
        """Wake a spawner that has nothing to do: orders will follow soon."""
        if not self._flushing and self._spawners[0].idle:
            self._spawners[0].wake()

    def look_after(self) -> None:
        """Have another spawner when all are stuck; to be called now and then."""
        limit = self._clock.monotonic() - _STUCK
        for spawner in self._spawners:
            spawner.stuck = spawner.waits_since < limit
        if len(self._spawners) < _MOST and all(spawner.stuck for spawner in self._spawners):
            self._another()

    def close(self) -> None:
        """End the spawners; no command may be running."""
        for spawner in self._spawners:
            spawner.close()

    def _another(self) -> _Spawner | None:
        """Start another spawner; None if the machine has nothing left for it: those that there are go on alone."""
        try:
            spawner = self._make()
        except OSError as error:
            if not self._short:
                _log.warning("another spawner could not be started", spawners=len(self._spawners), error=str(error))
            self._short = True
            return None
        self._short = False
        self._spawners.append(spawner)
        return spawner

    def _flush(self) -> None:
        self._flushing = False
        for spawner in self._spawners:
            spawner.flush()


def order_for(launch: Launch, number: int) -> Order:
    """Return the launch as bytes for the kernel. Raises SpawnError for what cannot be passed to a program."""
    environment = launch.environment
    identity = launch.identity
    program = launch.arguments[0]
    try:
        words = _strings(launch.arguments)
        variables = _strings([f"{name}={value}" for name, value in environment.items()])
        for name in environment:
            if not name or "=" in name:
                raise ValueError(f"{name!r} is no name of a variable")
        return Order(
            number,
            words,
            variables,
            "" if "/" in program else environment.get("PATH", DEFAULT_PATH),
            identity.uid,
            identity.gid,
            identity.groups,
            None if launch.directory is None else _strings([launch.directory])[0],
            launch.umask,
            launch.stdin,
            list(launch.limits),
            len(launch.cell),
        )
    except ValueError as error:
        raise SpawnError("invalid_argument", f"the command or its environment: {error}") from error


def _strings(texts: Sequence[str]) -> list[bytes]:
    """Return texts, at least one, as the kernel is given them. Raises ValueError for a NUL, which would end them."""
    strings = "\0".join(texts).encode("utf-8", "surrogateescape").split(b"\0")
    if len(strings) != len(texts):
        raise ValueError("embedded null byte")
    return strings


def _copies(descriptors: Sequence[int]) -> list[int]:
    """Return others of the same: their owner may close them before they are sent. Raises SpawnError."""
    copies: list[int] = []
    try:
        for fd in descriptors:
            copies.append(os.dup(fd))  # noqa: PERF401  # those that there are have to be closed
    except OSError as error:
        for fd in copies:
            os.close(fd)
        raise SpawnError("limits_not_set", f"the cgroup for its limits: {error}") from error
    return copies


def _start(socket_fd: int, memory_fd: int, directory: str, files: int) -> int:
    # Nothing that the worker was told of its servers is there for others to read.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("DTS_") or name == FAILPOINTS
    }
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "scheduler.worker.spawner", directory, str(files)],
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, socket_fd, SOCKET_FD), (os.POSIX_SPAWN_DUP2, memory_fd, PAGE_FD)],
    )
