"""Where work comes from: offers that Redis brings, and what PostgreSQL holds when Redis brings nothing."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import anyio
from anyio.lowlevel import checkpoint

from scheduler.broker import Broker, BrokerUnavailable, Delivery
from scheduler.domain.clock import Clock
from scheduler.domain.lane import DEFAULT_NAMESPACE, PLAIN_EXECUTOR, lane_of, satisfies
from scheduler.domain.run import Claim
from scheduler.failpoints import Point, reach
from scheduler.store.database import StoreUnavailable
from scheduler.store.dispatch import Dispatch
from scheduler.store.execution import Executions, Settled
from scheduler.store.registration import Registration
from scheduler.telemetry import get_logger
from scheduler.worker.execution import Attempts
from scheduler.worker.lease import ClaimCount
from scheduler.worker.settings import WorkerSettings
from scheduler.worker.slots import Slots

_BLOCK = 1.0
"""Seconds that a read waits for offers."""
_PATIENCE = 0.025
"""Seconds that few free slots of a busy worker wait for company, so that one claim serves them all."""
_QUIET = 1.0
"""Seconds without work from Redis after which PostgreSQL is asked, for runs that wait at least so long."""
_LONGEST_QUIET = 10.0
_AWAY = 0.25
"""The same while Redis is known to be away, and seconds between two questions then."""
_LANES = 1.0

_log = get_logger("worker")


class Lanes:
    """The lanes that this worker reads, and those of them in which dependents may be queued at once."""

    def __init__(self, dispatch: Dispatch, broker: Broker, settings: WorkerSettings, executors: frozenset[str]) -> None:
        self._dispatch = dispatch
        self._broker = broker
        self._settings = settings
        self._executors = executors
        self._open: list[str] = []
        plain = PLAIN_EXECUTOR in executors
        self.names = [lane_of(DEFAULT_NAMESPACE, queue, PLAIN_EXECUTOR, {}) for queue in settings.queues if plain]

    def open_lanes(self) -> Sequence[str]:
        """Return lanes that were open a moment ago."""
        return self._open

    async def refresh(self) -> float:
        """Learn of new lanes, and which are open; return the seconds until the next time."""
        found = dict.fromkeys(self.names)
        every = await self._dispatch.lanes()
        for lane in every:
            if lane.queue in self._settings.queues and satisfies(
                self._executors, self._settings.labels, lane.executor, lane.requires
            ):
                found[lane.lane] = None
        self.names = list(found)
        try:
            self._open = sorted(await self._broker.is_open([lane.lane for lane in every] or self.names))
        except BrokerUnavailable:
            self._open = []
        return _LANES


class Intake:
    """Claims runs for free slots and hands them to `start`. A step returns when to be called again.

    `expect` hears of claims that are about to be made.
    """

    def __init__(  # noqa: PLR0913  # the collaborators of claiming, wired in one place
        self,
        *,
        worker_id: UUID,
        broker: Broker,
        executions: Executions,
        registration: Registration,
        attempts: Attempts,
        lanes: Lanes,
        slots: Slots,
        claims: ClaimCount,
        clock: Clock,
        expect: Callable[[], None],
        start: Callable[[Claim], None],
    ) -> None:
        self._worker_id = worker_id
        self._broker = broker
        self._executions = executions
        self._registration = registration
        self._attempts = attempts
        self._lanes = lanes
        self._slots = slots
        self._claims = claims
        self._clock = clock
        self._expect = expect
        self._start = start
        self._settle: list[Delivery] = []
        self._reserved = 0  # slots that a claim under way may fill
        self._last_delivery = clock.monotonic()
        self._waiting = anyio.CancelScope()
        self.stopped = False

    def stop(self) -> None:
        """Claim no more. What a read brings at this very moment is left to the reconciler."""
        self.stopped = True
        self._waiting.cancel()

    async def from_broker(self) -> float | None:
        """Wait for free slots, then for offers; claim these."""
        deliveries: list[Delivery] = []
        with anyio.CancelScope() as self._waiting:
            if self.stopped:
                return None
            free = await self._slots.wait_free(_PATIENCE) - self._reserved
            if free <= 0:
                return _PATIENCE
            if not self._lanes.names:
                return _LANES
            settle, self._settle = self._settle, []
            deliveries = await self._broker.read(self._lanes.names, self._worker_id, free, _BLOCK, settle=settle)
        if not deliveries:
            return None if self.stopped else 0.0
        self._last_delivery = self._clock.monotonic()
        room = max(0, self._slots.free - self._reserved)  # PostgreSQL may have filled slots since the read began
        taken, surplus = deliveries[:room], deliveries[room:]
        offers = [(delivery.run.run_id, delivery.run.seq) for delivery in taken]
        try:
            if offers:
                self._expect()
                await self._claim(len(offers), lambda: self._executions.claim(offers))
        finally:
            self._settle = taken  # with the next read; if they were not claimed, the reconciler offers them again
            if surplus:
                await self._broker.give_back(surplus, self._worker_id)
        return 0.0

    async def from_database(self) -> float | None:
        """Claim what waits in PostgreSQL, if Redis has brought nothing for a while."""
        if self.stopped:
            return None
        away = not self._broker.available
        quiet = self._clock.monotonic() - self._last_delivery
        if quiet < _QUIET and not away:
            return _QUIET - quiet
        free = self._slots.free - self._reserved
        if free > 0:
            lanes, age = self._lanes.names, _AWAY if away else _QUIET
            claimed = await self._claim(free, lambda: self._executions.claim_waiting(lanes, free, age))
            if claimed == free:
                await self._slots.wait_free(_PATIENCE)
                return 0.0
            if claimed:
                return _PATIENCE
        if away:
            return _AWAY
        workers = await self._registration.live_workers()
        return min(_LONGEST_QUIET, _QUIET * max(1, workers)) * random.uniform(0.8, 1.2)  # noqa: S311  # jitter

    async def settle_rest(self) -> None:
        """Be done with all that was delivered; for the end."""
        settle, self._settle = self._settle, []
        try:
            if settle:
                await self._broker.settle(settle)
            await self._broker.forget_worker(self._lanes.names, self._worker_id)
        except BrokerUnavailable:
            return  # deliveries are reclaimed, credit expires

    async def _claim(self, most: int, call: Callable[[], Awaitable[list[Claim]]]) -> int:
        number = self._claims.begin()
        self._reserved += most
        try:
            await reach(Point.CLAIM_SENDING)
            claims = await call()
            await reach(Point.CLAIM_COMMITTED, StoreUnavailable)
            for claim in claims:
                self._attempts.adopt(claim)
                self._slots.take()
        finally:
            self._reserved -= most
            self._claims.end(number)
        for claim in claims:
            self._start(claim)
        await checkpoint()  # their commands first, then the next read
        await reach(Point.CLAIM_STARTED)
        return len(claims)


async def offer_dependents(broker: Broker, settled: Settled) -> None:
    """Pass on what ended runs set free: to the workers at once, or to the leader."""
    try:
        if settled.queued:
            await broker.push(settled.queued)
        if settled.ready:
            await broker.publish("wake:control")
    except BrokerUnavailable as error:
        _log.debug("dependents wait for the reconciler", error=str(error))


async def wake_leader(broker: Broker) -> None:
    """Tell the leader that there is something to promote; it looks now and then anyway."""
    try:
        await broker.publish("wake:control")
    except BrokerUnavailable as error:
        _log.debug("the leader was not woken", error=str(error))
