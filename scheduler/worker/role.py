"""The worker role, from top to bottom.

    register → claim → execute → report, until told to stop; then drain and leave

An incarnation is one registration with one lease. A worker whose lease ran out kills its commands, drops what they
came to, since they are somebody else's now, and registers again as a new incarnation when the database is back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from uuid import UUID

import anyio
import anyio.abc
import msgspec

from scheduler import __version__
from scheduler.broker import Broker
from scheduler.domain.clock import Clock
from scheduler.domain.ids import IdSource
from scheduler.failpoints import Point, reach
from scheduler.health import Health
from scheduler.service import cancelled_by, until_available
from scheduler.store.database import PASSING, Database
from scheduler.store.reaping import Reaping
from scheduler.store.registration import NewWorker, Registration
from scheduler.telemetry import get_logger
from scheduler.worker.dispatch import offer_dependents, wake_leader
from scheduler.worker.guard import REPLACES
from scheduler.worker.incarnation import Incarnation
from scheduler.worker.machine import Machine, watch_guard
from scheduler.worker.page import VARIABLE
from scheduler.worker.settings import WorkerSettings

_LAST_TRY = 2.0
"""Seconds that burying may take yet when the worker is told to end: what it does not move waits for the lease."""

_log = get_logger("worker")


async def run(  # noqa: PLR0913 - a composition root takes what it composes
    *,
    database: Database,
    broker: Broker,
    clock: Clock,
    health: Health,
    stop: anyio.Event,
    settings: WorkerSettings,
    lease_database: Database | None = None,
    prepare: Callable[[WorkerSettings, Clock], Machine] = Machine.prepare,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Execute runs until `stop` is set, then drain. `task_status.started()` is called once it is registered.

    `lease_database` holds a connection for the lease alone; `prepare` makes what commands are executed with.
    """
    registration = Registration(lease_database or database)
    ids = IdSource(clock)
    machine = prepare(settings, clock)
    settings = msgspec.structs.replace(settings, labels={**settings.labels, **machine.labels})
    replaces = os.environ.pop(REPLACES, None)
    guard = os.environ.get(VARIABLE)
    try:
        with watch_guard(guard, machine):
            if replaces is not None:
                reaping, predecessor = Reaping(database, ids), UUID(hex=replaces)
                async with cancelled_by(stop, patience=_LAST_TRY):
                    await _bury(reaping, broker, predecessor, health)
            before: UUID | None = None
            while not stop.is_set():
                worker = _new_worker(ids.one(), settings, machine)
                sent = await _register(registration, worker, before, machine, clock, health, stop)
                if sent is None:
                    return
                if before is None:
                    task_status.started()
                before = worker.id
                _log.info("registered", worker_id=str(worker.id), slots=worker.slots, queues=list(worker.queues))
                incarnation = Incarnation(
                    worker.id,
                    sent,
                    database=database,
                    registration=registration,
                    broker=broker,
                    clock=clock,
                    health=health,
                    ids=ids,
                    machine=machine,
                    settings=settings,
                )
                if await incarnation.run(stop):
                    return
    finally:
        machine.close()


def _new_worker(worker_id: UUID, settings: WorkerSettings, machine: Machine) -> NewWorker:
    host = socket.gethostname()
    return NewWorker(
        id=worker_id,
        name=settings.name or host,
        host=host,
        pid=os.getpid(),
        queues=settings.queues,
        executors=sorted(machine.executors),
        labels=settings.labels,
        containment=machine.containment,
        slots=settings.slots,
        version=__version__,
        lease=settings.lease,
    )


async def _register(
    registration: Registration,
    worker: NewWorker,
    before: UUID | None,
    machine: Machine,
    clock: Clock,
    health: Health,
    stop: anyio.Event,
) -> float | None:
    """Register once the database is there; return the `boottime` from which the lease counts, None if told to stop.

    The incarnation `before` is over: it may have left without saying so, which would be taken for its death.
    """
    registered: float | None = None

    async def register() -> None:
        nonlocal registered
        machine.launcher.signing_key = await registration.run_token_key()
        if before is not None:
            await registration.leave(before, "lease_lost")
        sent = clock.boottime()
        await registration.register(worker)
        registered = sent

    async with cancelled_by(stop):
        await until_available("worker.register", register, health=health, retry_on=PASSING)
    return registered


async def _bury(reaping: Reaping, broker: Broker, worker_id: UUID, health: Health) -> None:
    """Move the runs of the incarnation before us, whose guard has seen the last of its processes."""
    await reach(Point.BURYING)
    reaped = await until_available(
        "worker.bury",
        lambda: reaping.reap(worker_id, renewal=None, epoch=None, reason="worker_died"),
        health=health,
        retry_on=PASSING,
    )
    _log.warning("the worker before this one died", worker_id=str(worker_id), runs=dict(reaped.states))
    await offer_dependents(broker, reaped.settled)
    if reaped.promotable:
        await wake_leader(broker)
