"""The scheduler role, from the outside in.

    observe    every scheduler watches the workers' leases, so that a new leader need not begin from zero
    elect      one of them holds the term; it alone leads:
      fire       planned fires that have come due become runs
      promote    runs that are due and unblocked are queued and offered to workers
      unfold     runs of workflows become runs of their tasks, and end with them
      reap       workers whose lease has expired are ended, their runs go on elsewhere
      reconcile  what Redis, or a count, does not know any more is put right
      retain     history is partitioned ahead of time and dropped when its time is over
      seal       what the audit log has gained is chained to what it held
      report     what fails here, and how deep the queues are, is told to every API

Every write of the leader is fenced by its term. Losing Redis makes all of this slower, never wrong.
"""

from __future__ import annotations

import os
import socket
from uuid import uuid4

import anyio
import anyio.abc

from scheduler.broker import Broker
from scheduler.control.election import CHANNEL, Election, Holder, Term
from scheduler.control.leading import Leading
from scheduler.control.observe import Observer
from scheduler.control.reign import Reign, Wakes
from scheduler.control.settings import ControlSettings
from scheduler.domain.clock import Clock
from scheduler.domain.ids import IdSource
from scheduler.health import Health
from scheduler.service import Service
from scheduler.store.database import Database
from scheduler.store.dispatch import Dispatch
from scheduler.store.reaping import Reaping
from scheduler.store.terms import Terms


async def run(
    *,
    database: Database,
    broker: Broker,
    clock: Clock,
    health: Health,
    stop: anyio.Event,
    settings: ControlSettings,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Take part in scheduling until `stop`: stand by, lead when it is our turn, hand over when stopped.

    `task_status.started()` is called once it takes part.

    `database` should allow `settings.CONNECTIONS` connections, opened with `leader_settings(settings.lock_ttl)`.
    `broker.run` has to be running, or wake-ups are missed and everything takes until the next poll.
    """
    ids = IdSource(clock)
    wakes = Wakes()
    observer = Observer(Reaping(database, ids), clock=clock, on_expired=wakes.reap.set)
    dispatch = Dispatch(database)

    def leading(epoch: int) -> Leading:
        return Leading(epoch, settings, broker, dispatch, ids, clock, health, wakes.ready, wakes.reconcile.set)

    reign = Reign(database=database, observer=observer, wakes=wakes, leading=leading)

    async with Service("scheduler", health=health) as service:

        def lead(term: Term) -> None:
            service.start(f"reign {term.epoch}", reign.run, term)

        election = Election(
            holder=Holder(uuid4(), socket.gethostname(), os.getpid()),
            ttl=settings.lock_ttl,
            terms=Terms(database),
            broker=broker,
            ids=ids,
            clock=clock,
            health=health,
            lead=lead,
        )
        listeners = [
            broker.listen(CHANNEL, lambda _: election.wake.set(), election.wake.set),
            broker.listen("wake:control", lambda _: wakes.work(), wakes.work),
        ]
        unwatch = broker.on_return(wakes.returned)
        try:
            async with Service("candidate", health=health) as candidate:
                candidate.loop("observe", observer.step)
                candidate.loop("elect", election.step, wake=election.wake)
                task_status.started()
                await stop.wait()
                await candidate.drain(settings.lock_ttl)
        finally:
            unwatch()
            for listener in listeners:
                broker.unlisten(listener)
            with anyio.CancelScope(shield=True), anyio.move_on_after(2 * settings.lock_ttl):
                await election.resign()
    health.forget("scheduler.term")
