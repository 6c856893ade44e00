"""The kinds of faults that a plan is drawn from: how often, for how long, on whom, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from scheduler.failpoints import Point
from tests.support.cluster import Cluster, Member
from tests.support.cluster.faults import ClockJump, Cut, Fault, Freeze, Kill, Leader, Postgres, Redis, Stop, Trap

Arguments = tuple[Any, ...]


class Kind(msgspec.Struct, frozen=True):
    """`span` is how long one lasts at least and at most: in seconds, or in leases with `in_leases`."""

    weight: int
    span: tuple[float, float]
    draw: Callable[[Random, Sequence[str]], Arguments]
    make: Callable[[Cluster, Arguments], Fault]
    in_leases: bool = False


_TRAPS: dict[str, tuple[Point, ...]] = {
    "api": (Point.INTAKE_COMMITTED, Point.INTAKE_FORCING, Point.OFFERS_SENDING),
    "scheduler": (
        Point.TERM_TAKEN,
        Point.TERM_RENEWING,
        Point.TERM_HELD,
        Point.FIRE_DECIDED,
        Point.FIRE_WRITTEN,
        Point.PROMOTED,
        Point.LANE_CLEARED,
        Point.REAP_FLIPPED,
        Point.REAP_COMMITTED,
    ),
    "worker": (
        Point.CLAIM_SENDING,
        Point.CLAIM_COMMITTED,
        Point.CLAIM_STARTED,
        Point.COMMAND_STARTED,
        Point.COMMAND_ENDED,
        Point.FINISH_SENDING,
        Point.FINISH_COMMITTED,
        Point.LEASE_RENEWING,
        Point.LEASE_RENEWED,
        Point.BURYING,
        Point.WORKER_ENDED,
        Point.TREE_EMPTY,
        Point.ORDERED,
        Point.SPAWNED,
        Point.REAPED,
    ),
}


def _nothing(_random: Random, _members: Sequence[str]) -> Arguments:
    return ()


def _anybody(random: Random, members: Sequence[str]) -> Arguments:
    return (random.choice(members),)


def _a_worker(random: Random, members: Sequence[str]) -> Arguments:
    return (random.choice([name for name in members if name.startswith("worker")]),)


def _way(random: Random, members: Sequence[str]) -> Arguments:
    servers, directions = ("postgres", "redis"), ("both", "to server", "from server")
    return random.choice(members), random.choice(servers), random.choice(directions)


def _clock(random: Random, members: Sequence[str]) -> Arguments:
    return random.choice(members), random.choice((-3600.0, 3600.0))


def _place(random: Random, members: Sequence[str]) -> Arguments:
    member = random.choice(members)
    point = random.choice(_TRAPS[member.partition("-")[0]])
    # A stopped guard is a frozen one, and neither in the guard nor in a spawner is there anything that could fail.
    actions = ("crash", "pause") if point.startswith(("guard", "spawner")) else ("crash", "pause", "error", "stop")
    return member, str(point), random.choice(actions)


def _one_of(*values: str) -> Callable[[Random, Sequence[str]], Arguments]:
    return lambda random, _: (random.choice(values),)


def _member(cluster: Cluster, name: str) -> Member:
    return next(member for member in cluster.members if member.name == name)


def _on(make: Callable[..., Fault], *more: Any) -> Callable[[Cluster, Arguments], Fault]:
    """Make a fault of the member that the first argument names."""
    return lambda cluster, args: make(_member(cluster, args[0]), *args[1:], *more)


def _trap(member: Member, point: str, action: Any) -> Fault:
    return Trap(member, Point(point), action)


KINDS: dict[str, Kind] = {
    "kill": Kind(4, (0.3, 3.0), _anybody, _on(Kill)),
    "kill worker": Kind(5, (0.1, 1.0), _a_worker, _on(Kill, "worker")),
    "kill guard and worker": Kind(1, (0.3, 2.0), _a_worker, _on(Kill, "guard and worker")),
    "kill leader": Kind(3, (0.3, 3.0), _nothing, lambda cluster, _: Leader(cluster, "kill", Kill)),
    "kill spawners": Kind(2, (0.1, 1.0), _a_worker, _on(Kill, "spawners")),
    "freeze spawners": Kind(2, (0.3, 1.5), _a_worker, _on(Freeze, "spawners"), in_leases=True),
    "stop": Kind(3, (0.5, 2.0), _anybody, _on(Stop)),
    "freeze": Kind(2, (0.3, 1.5), _anybody, _on(Freeze), in_leases=True),
    "freeze worker": Kind(4, (0.3, 1.5), _a_worker, _on(Freeze, "worker"), in_leases=True),
    "freeze tree": Kind(3, (0.3, 1.5), _a_worker, _on(Freeze, "worker and commands"), in_leases=True),
    "freeze everything": Kind(1, (0.3, 1.5), _a_worker, _on(Freeze, "everything"), in_leases=True),
    "freeze leader": Kind(3, (0.3, 4.0), _nothing, lambda cluster, _: Leader(cluster, "freeze", Freeze)),
    "cut": Kind(8, (0.2, 1.6), _way, _on(Cut), in_leases=True),
    "clock": Kind(4, (1.0, 8.0), _clock, _on(ClockJump)),
    "trap": Kind(8, (0.5, 4.0), _place, _on(_trap)),
    "redis": Kind(6, (0.5, 5.0), _one_of("flush", "restart", "down", "freeze"), lambda c, args: Redis(c, *args)),
    "postgres": Kind(
        5, (0.5, 4.0), _one_of("terminate", "terminate", "restart", "crash", "down"), lambda c, args: Postgres(c, *args)
    ),
}
