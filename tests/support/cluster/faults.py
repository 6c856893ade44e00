"""What can go wrong with a system, each as something that is injected and healed.

`heal` mends what was broken and starts again what has died, as a machine's supervisor would; it may be called whatever
became of the fault meanwhile. Faults are independent, so several may be in force at once.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import psutil
import redis

from scheduler.failpoints import Point
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.links import Direction
from tests.support.cluster.member import Member
from tests.support.failpoints import Action
from tests.support.waiting import until_sync

_STOPPING = 15.0
"""Seconds that a planned stop may take."""

Part = Literal["first", "worker", "spawners", "guard and worker", "worker and commands", "everything"]
"""Of a member: its first process (of a worker, the guard), the worker proper or what starts its commands, either with
more, or all of them."""


class Fault(Protocol):
    """`text` tells what it is; `excepted`: two executions of a run may then overlap, as the promises say."""

    text: str
    excepted: bool

    def inject(self) -> None:
        """Break it."""
        ...

    def heal(self) -> None:
        """Mend it."""
        ...


class _Plain:
    excepted = False
    text = ""

    def __repr__(self) -> str:
        return self.text


def restart(member: Member) -> None:
    """Start a member that has died."""
    if not member.alive:
        member.start()


class Kill(_Plain):
    """SIGKILL. The guard starts a worker proper again, everything else waits for `heal`."""

    def __init__(self, member: Member, part: Part = "first") -> None:
        self.text = f"kill {member.name} ({part})"
        self._member = member
        self._part: Part = part

    def inject(self) -> None:
        for process in _processes(self._member, self._part):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._part in ("first", "guard and worker", "everything"):
            self._member.wait(30)

    def heal(self) -> None:
        restart(self._member)


class Freeze(_Plain):
    """SIGSTOP until healed."""

    def __init__(self, member: Member, part: Part = "first") -> None:
        self.text = f"freeze {member.name} ({part})"
        self.excepted = part == "everything"
        self._member = member
        self._part: Part = part
        self._frozen: list[psutil.Process] = []

    def inject(self) -> None:
        self._frozen = _processes(self._member, self._part)
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def heal(self) -> None:
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()  # checks that it still is the same process
        restart(self._member)


def _processes(member: Member, part: Part) -> list[psutil.Process]:
    if part == "first":
        return member.tree()[:1]
    if part == "worker":
        return [member.worker]
    if part == "spawners":
        return member.spawners()
    if part == "guard and worker":
        return [*member.tree()[:1], member.worker]
    if part == "worker and commands":
        return [member.worker, *member.commands()]
    return member.tree()


class Stop(_Plain):
    """A planned stop, as of a rolling restart; who takes too long over it is killed, as a supervisor does."""

    def __init__(self, member: Member) -> None:
        self.text = f"stop {member.name}"
        self._member = member

    def inject(self) -> None:
        if self._member.alive:
            self._member.signal(signal.SIGTERM)

    def heal(self) -> None:
        try:
            self._member.wait(_STOPPING)
        except subprocess.TimeoutExpired:
            self._member.kill()
        restart(self._member)


class Cut(_Plain):
    """No packet between a member and a server, in one direction or both."""

    def __init__(self, member: Member, server: Literal["postgres", "redis"], direction: Direction = "both") -> None:
        self.text = f"cut {member.name} and {server} ({direction})"
        self._way = member.ways[server]
        self._direction: Direction = direction

    def inject(self) -> None:
        self._way.cut(self._direction)

    def heal(self) -> None:
        self._way.mend()


class ClockJump(_Plain):
    """The wall clock of one process is wrong."""

    def __init__(self, member: Member, seconds: float) -> None:
        self.text = f"clock of {member.name} by {seconds:+.0f} s"
        self._member = member
        self._seconds = seconds

    def inject(self) -> None:
        self._member.move_clock(self._seconds)

    def heal(self) -> None:
        self._member.move_clock(0.0)


class Trap(_Plain):
    """The next time that a member gets to a point, this happens to it."""

    def __init__(self, member: Member, point: Point, action: Action) -> None:
        self.text = f"{action} {member.name} at {point}"
        self._member = member
        self._point = point
        self._action: Action = action

    def inject(self) -> None:
        self._member.failpoints.arm(self._point, self._action)

    @property
    def sprung(self) -> bool:
        """Whether somebody has got there."""
        return self._member.failpoints.reached(self._point) is not None

    def heal(self) -> None:
        points = self._member.failpoints
        if not points.disarm(self._point):
            pid = points.reached(self._point)
            points.release(self._point)
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if self._action == "stop":
                    with contextlib.suppress(AssertionError):  # somebody else may have resumed it
                        until_sync(lambda: process.status() == psutil.STATUS_STOPPED, 1.0)
                    process.resume()
                elif self._action == "crash":
                    process.wait(10)
        restart(self._member)


class Redis(_Plain):
    """Valkey loses everything (`flush`, `restart`), is away until healed (`down`), or answers nobody (`freeze`)."""

    def __init__(self, cluster: Cluster, what: Literal["flush", "restart", "down", "freeze"]) -> None:
        self.text = f"redis {what}"
        self._server = cluster.valkey
        self._what = what

    def inject(self) -> None:
        if self._what == "flush":
            with redis.Redis.from_url(self._server.url) as client:
                client.flushall()
        elif self._what == "freeze":
            self._server.freeze()
        else:
            self._server.kill()
        if self._what == "restart":
            self._server.start()

    def heal(self) -> None:
        if self._what == "freeze":
            self._server.thaw()
        elif self._what == "down":
            self._server.start()


class Postgres(_Plain):
    """PostgreSQL ends every session, restarts with or without a crash, or is away until healed."""

    def __init__(self, cluster: Cluster, what: Literal["terminate", "restart", "crash", "down"]) -> None:
        self.text = f"postgres {what}"
        self._cluster = cluster
        self._what = what

    def inject(self) -> None:
        server = self._cluster.postgres
        if self._what == "terminate":
            self._cluster.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            return
        if self._what == "crash":
            server.crash()
        else:
            server.stop()
        if self._what != "down":
            server.start()

    def heal(self) -> None:
        if self._what == "down":
            self._cluster.postgres.start()


class Leader(_Plain):
    """A fault of whoever leads when it is injected."""

    def __init__(self, cluster: Cluster, what: str, make: Callable[[Member], Fault]) -> None:
        self.text = f"{what} the leader"
        self._cluster = cluster
        self._make = make
        self._fault: Fault | None = None

    def inject(self) -> None:
        with contextlib.suppress(LookupError):
            leader = self._cluster.leader()
            self._fault = self._make(leader)
            self._fault.inject()

    def heal(self) -> None:
        if self._fault is not None:
            self._fault.heal()


@contextlib.contextmanager
def in_force(*faults: Fault) -> Iterator[None]:
    """Inject faults, and heal them when the block is left."""
    with contextlib.ExitStack() as stack:
        for fault in faults:
            stack.callback(fault.heal)
            fault.inject()
        yield
