"""One registration of a worker: from its first lease until it has left, or lost its lease.

Attempts are never cancelled: they are told to stop, and the incarnation waits for them, so that every command is gone
and every outcome committed. Hence all of this runs shielded, and being cancelled from outside means to stop at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import anyio
import anyio.abc

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.domain.clock import Clock
from scheduler.domain.ids import IdSource
from scheduler.domain.lease import LeaseClock, LeaseTerms
from scheduler.domain.run import Claim
from scheduler.health import Health
from scheduler.service import Service, Wake
from scheduler.store.checkpoints import Checkpoints
from scheduler.store.database import PASSING, Database
from scheduler.store.dispatch import Dispatch
from scheduler.store.execution import Executions, Settled
from scheduler.store.outputs import Outputs
from scheduler.store.registration import Registration
from scheduler.store.secrets import Secrets
from scheduler.telemetry import get_logger
from scheduler.worker.dispatch import Intake, Lanes, offer_dependents
from scheduler.worker.execution import Attempts
from scheduler.worker.keeping import Keeper
from scheduler.worker.lease import ClaimCount, LeaseKeeper
from scheduler.worker.machine import Machine
from scheduler.worker.runners import Runners
from scheduler.worker.secrets import Opener
from scheduler.worker.settings import WorkerSettings
from scheduler.worker.slots import Slots

_HEARTBEAT = 2.0
_LAST_WORDS = 2.0
"""Seconds for saying good-bye, and for outcomes when there is no time to drain."""

_log = get_logger("worker")


class Incarnation:
    """Executes runs under one worker id. `registered_at`: boot time just before it was registered."""

    def __init__(  # noqa: PLR0913  # all that a worker works with
        self,
        worker_id: UUID,
        registered_at: float,
        *,
        database: Database,
        registration: Registration,
        broker: Broker,
        clock: Clock,
        health: Health,
        ids: IdSource,
        machine: Machine,
        settings: WorkerSettings,
    ) -> None:
        self._worker_id = worker_id
        self._registration = registration
        self._broker = broker
        self._clock = clock
        self._health = health
        self._machine = machine
        self._settings = settings
        self._slots = Slots(settings.slots, clock)
        self._claims = ClaimCount()
        self._lanes = Lanes(Dispatch(database), broker, settings, frozenset(machine.executors))
        self._outputs = Outputs(database)
        self._checkpoints = Checkpoints(database)
        self._opener = Opener(Secrets(database), settings.master_keys)
        self._executions = Executions(
            database, ids, worker_id, lanes_open=self._lanes.open_lanes, on_settled=self._on_settled
        )
        self._lease = LeaseClock(LeaseTerms(settings.lease))
        self._lease.renewed(registered_at)
        self._drain_requested = anyio.Event()
        self._hurry = anyio.Event()

    async def run(self, stop: anyio.Event) -> bool:
        """Work until `stop` is set or the lease is lost; True if the worker is to end. Cancelling it means: hurry."""
        ended = anyio.Event()
        result = False

        async def shielded() -> None:
            nonlocal result
            with anyio.CancelScope(shield=True):
                result = await self._run(stop)
            ended.set()

        async with anyio.create_task_group() as group:
            group.start_soon(shielded, name="incarnation")
            try:
                await ended.wait()
            finally:
                self._hurry.set()
        return result

    async def _run(self, stop: anyio.Event) -> bool:
        page = self._machine.page
        page.incarnation = self._worker_id.bytes
        page.hold_until(self._lease.deadline, ask_at=self._lease.ask_at)
        page.wake_guard()
        async with Service("worker.store", health=self._health) as store:
            store.start("outcomes", self._executions.run)
            store.start("outputs", self._outputs.run)
            to_end = True  # also if there was no time to say so
            async with anyio.create_task_group() as group:
                to_end = await self._work(group, stop)
            with anyio.move_on_after(_LAST_WORDS):
                await self._leave("drained" if to_end else "lease_lost")
        return to_end

    async def _work(self, group: anyio.abc.TaskGroup, stop: anyio.Event) -> bool:
        attempts = Attempts(
            group=group,
            executors=self._machine.executors,
            launcher=self._machine.launcher,
            scratch=self._machine.scratch,
            opener=self._opener,
            keeper=Keeper(self._outputs, self._checkpoints, self._machine.scratch, self._broker),
            checkpoints=self._checkpoints,
            executions=self._executions,
            broker=self._broker,
            slots=self._slots,
            clock=self._clock,
            page=self._machine.page,
            look_at_processes=self._machine.look_after,
        )
        runners: Runners[Claim] = Runners(group, attempts.run, "attempt")
        intake = Intake(
            worker_id=self._worker_id,
            broker=self._broker,
            executions=self._executions,
            registration=self._registration,
            attempts=attempts,
            lanes=self._lanes,
            slots=self._slots,
            claims=self._claims,
            clock=self._clock,
            expect=self._machine.processes.expect,
            start=runners.start,
        )
        keeper = LeaseKeeper(
            worker_id=self._worker_id,
            registration=self._registration,
            attempts=attempts,
            executions=self._executions,
            lease=self._lease,
            page=self._machine.page,
            clock=self._clock,
            claims=self._claims,
            drain=self._drain_requested.set,
        )
        renew, back = Wake(), Wake()
        unwatch = self._broker.on_return(back.set)
        cancels = self._broker.listen(f"worker:{self._worker_id}", lambda _: renew.set(), renew.set)
        try:
            async with Service("worker", health=self._health) as service:
                service.loop("lease", keeper.renew, wake=renew)
                service.loop("expiry", keeper.expire, wake=keeper.expiry_wake)
                service.loop("look", attempts.look, wake=attempts.look_wake)
                service.loop("lanes", self._lanes.refresh)
                service.loop("heartbeat", self._heartbeat)
                claims = service.loop("database claims", intake.from_database)
                service.loop("dispatch", intake.from_broker, back=back, on_error=lambda _: claims.set())
                await _first(stop.wait, self._drain_requested.wait, keeper.lost.wait, self._hurry.wait)
                intake.stop()
                with anyio.move_on_after(_LAST_WORDS):
                    await self._claims.wait_until_none()
                if not keeper.lost.is_set():
                    await self._drain(attempts, keeper)
                await self._finish(attempts, group)
                runners.dismiss()
            await intake.settle_rest()
        finally:
            unwatch()
            self._broker.unlisten(cancels)
        return stop.is_set() or self._drain_requested.is_set() or self._hurry.is_set()

    async def _drain(self, attempts: Attempts, keeper: LeaseKeeper) -> None:
        """Let commands finish for a while."""
        if not attempts.fences:
            return
        _log.info("draining", running=attempts.running, seconds=self._settings.drain_timeout)
        with anyio.move_on_after(self._settings.drain_timeout):
            async with anyio.create_task_group() as group:
                group.start_soon(self._announce, name="announce draining")
                await _first(attempts.wait_until_none, keeper.lost.wait, self._hurry.wait)
                group.cancel_scope.cancel()

    async def _announce(self) -> None:
        """Show others that no more is claimed."""
        try:
            await self._registration.drain(self._worker_id)
        except PASSING:
            _log.warning("draining unannounced: the database is away or too slow")

    async def _finish(self, attempts: Attempts, group: anyio.abc.TaskGroup) -> None:
        """Stop what still runs, and wait until its outcomes are committed."""
        attempts.stop_all("drained")
        await _first(attempts.wait_until_none, self._hurry.wait)
        if attempts.fences:
            attempts.kill_all("drained")
            with anyio.move_on_after(_LAST_WORDS):
                await attempts.wait_until_none()
            group.cancel_scope.cancel()  # what is not reported by now will be found by whoever reaps us

    async def _leave(self, reason: str) -> None:
        try:
            await self._registration.leave(self._worker_id, reason)
        except PASSING:
            _log.warning("left without saying so: the database is away or too slow")

    async def _heartbeat(self) -> float:
        try:
            await self._broker.heartbeat(self._worker_id, 2.5 * _HEARTBEAT)
        except BrokerUnavailable:
            return _HEARTBEAT / 2  # seen by the dispatch loop, which says so
        return _HEARTBEAT

    async def _on_settled(self, settled: Settled) -> None:
        await offer_dependents(self._broker, settled)


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return as soon as one of these does."""
    async with anyio.create_task_group() as group:

        async def wait(call: Callable[[], Awaitable[object]]) -> None:
            await call()
            group.cancel_scope.cancel()

        for call in waits:
            group.start_soon(wait, call, name="wait")
