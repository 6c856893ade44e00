"""Named places between two steps of a transition, where a test can make a process crash, stop, wait or fail.

Every place is declared once, in `Point`, and says `await reach(Point.X)` where it stands. With nothing armed that is
one look at two variables. Two ways to arm one:

- `handlers[point] = coroutine function`: for a test in the same process.
- `DTS_FAILPOINTS=<directory>` in the environment of a process: a file there named like the point holds an action. Who
  reaches the point first takes it, by renaming the file to `<point>.<pid>`, so it happens once, in one process, and
  files may be laid while everything runs.

Actions: `crash` (SIGKILL to itself), `stop` (SIGSTOP to itself), `error` (raise what the place says may fail there),
`pause` (wait, letting the rest of the process go on, until the renamed file is removed).

Imports the standard library only, because guard and spawners import it too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

VARIABLE = "DTS_FAILPOINTS"
_LOOK = 0.01
"""Seconds between two looks of somebody who waits."""


class Point(StrEnum):
    """Each says what has just happened, or is about to."""

    INTAKE_COMMITTED = "intake.committed"
    """api: new tasks are committed; nobody was answered, Redis knows nothing."""
    INTAKE_FORCING = "intake.forcing"
    """api: a new task is committed, and Redis may know it; whether it is on disk is not known, nobody was answered."""
    OFFERS_SENDING = "offers.sending"
    """api: what was committed is about to be told to Redis."""

    CLAIM_SENDING = "claim.sending"
    """worker: offers were read, and are not claimed yet."""
    CLAIM_COMMITTED = "claim.committed"
    """worker: a claim is committed; this process has not taken note, Redis was not told. Its reply may be lost."""
    CLAIM_STARTED = "claim.started"
    """worker: claimed commands are about to start, Redis was not told."""
    COMMAND_STARTED = "command.started"
    """worker: a spawner says that a command executes; nobody has taken note."""
    COMMAND_ENDED = "command.ended"
    """worker: a command and its tree have ended; nobody was told."""
    FINISH_SENDING = "finish.sending"
    """worker: outcomes are about to be committed."""
    FINISH_COMMITTED = "finish.committed"
    """worker: outcomes are committed, dependents are not offered. The reply may be lost."""
    LEASE_RENEWING = "lease.renewing"
    """worker: the lease is about to be renewed."""
    LEASE_RENEWED = "lease.renewed"
    """worker: the renewal is committed. Its reply may be lost."""
    BURYING = "worker.burying"
    """worker: about to move the runs of the incarnation before it."""

    WORKER_ENDED = "guard.worker-ended"
    """guard: its worker has ended; commands may still run."""
    WORKER_KILLED = "guard.worker-killed"
    """guard: the lease has run out and the worker was killed; its commands still run."""
    TREE_EMPTY = "guard.tree-empty"
    """guard: nothing of its worker is left; the next one is not started."""

    ORDERED = "spawner.ordered"
    """spawner: a command is ordered, and not started."""
    SPAWNED = "spawner.spawned"
    """spawner: a command executes; its worker was not told."""
    REAPED = "spawner.reaped"
    """spawner: a command has ended and nothing is left of its group; its worker was not told."""

    TERM_TAKEN = "term.taken"
    """scheduler: the term is taken; nothing of the new leader runs yet."""
    TERM_RENEWING = "term.renewing"
    """scheduler: the leader is about to renew its term."""
    TERM_HELD = "term.held"
    """scheduler: a transaction of the leader holds the term's row, and has written nothing."""
    FIRE_DECIDED = "fire.decided"
    """scheduler: what becomes of due fires is decided, and not written."""
    FIRE_WRITTEN = "fire.written"
    """scheduler: fires and their runs are committed; edges are not settled, nothing is offered."""
    PROMOTED = "promote.committed"
    """scheduler: runs are queued; Redis knows nothing."""
    LANE_CLEARED = "lanes.cleared"
    """scheduler: a lane was emptied to be rebuilt, and is still empty."""
    REAP_FLIPPED = "reap.flipped"
    """scheduler or worker: a worker was declared dead in a transaction that has not moved its runs."""
    REAP_COMMITTED = "reap.committed"
    """scheduler or worker: a worker and its runs were dealt with; nobody was told."""


class Injected(Exception):
    """What `error` raises where the place names nothing better."""


handlers: dict[Point, Callable[[], Awaitable[None]]] = {}
_directory = os.environ.get(VARIABLE)


async def reach(point: Point, error: type[Exception] = Injected) -> None:
    """Do what is armed for `point`, usually nothing; `error` is what may fail here in earnest."""
    if handlers and (handler := handlers.get(point)) is not None:
        await handler()
    if _directory is not None and (taken := _take(_directory, point, error)) is not None:
        import anyio  # noqa: PLC0415 - guard and spawners never get here

        while os.path.exists(taken):  # noqa: ASYNC110, ASYNC240, PTH110 - another process removes it
            await anyio.sleep(_LOOK)


def reach_now(point: Point) -> None:
    """Do the same where there is no event loop: a pause stops the whole thread. Handlers are not called."""
    if _directory is not None and (taken := _take(_directory, point, Injected)) is not None:
        while os.path.exists(taken):  # noqa: PTH110 - no pathlib in the guard
            time.sleep(_LOOK)


def _take(directory: str, point: Point, error: type[Exception]) -> str | None:
    """Take the action that lies there, if any, and do it; return the file whose end a pause waits for."""
    taken = f"{directory}/{point}.{os.getpid()}"
    try:
        os.rename(f"{directory}/{point}", taken)  # noqa: PTH104 - no pathlib in the guard
    except FileNotFoundError:
        return None
    with open(taken) as file:  # noqa: PTH123 - no pathlib in the guard
        action = file.read().strip()
    match action:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "error":
            raise error(f"injected at {point}")
        case "pause":
            return taken
        case _:
            raise ValueError(f"{point}: there is no action {action!r}")
    return None
