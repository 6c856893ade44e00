"""What has to be told to Redis after a commit, off the path of the answer.

Runs that were queued are offered, the leader is woken, workers hear of cancels. One loop sends whatever has gathered
since its last round trip, so a busy API batches by itself; nothing waits for it. While Redis is away the newest of it
is kept, and said as soon as Redis is back; the rest is dropped: PostgreSQL has it all, and the reconciler, the
leader's poll and the workers' renewals find it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from uuid import UUID

import anyio

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.domain.clock import Clock
from scheduler.domain.run import Queued
from scheduler.failpoints import Point, reach
from scheduler.service import Service, Wake
from scheduler.store.execution import Settled
from scheduler.store.intake import Created

REVIVED = "runs:revived"
"""Carries the ids, 16 bytes each, of runs that had ended and wait again."""

KNOWN_FOR = 1.0
"""Seconds for which an answer about a lane is used again."""

_PATIENCE = 0.05  # seconds that one submit in KNOWN_FOR may wait for the answer
_BATCH = 1000


class Offers:
    """Collects what Redis should hear; `step` sends it, in the loop that `start` begins."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._wake = Wake()
        self._back = Wake()  # set when Redis is back: what was kept is to be said now
        broker.on_return(self._back.set)
        self._broker = broker
        self._clock = clock
        self._queued: list[Queued] = []
        self._messages: dict[tuple[str, bytes], None] = {}
        self._lanes: dict[str, tuple[bool, float]] = {}  # lane → (open, until when that is believed)
        self._closings = 0  # an answer that was asked for before the last one may be out of date

    def start(self, service: Service) -> None:
        """Send in the background, from now on."""
        service.loop("offers", self.step, wake=self._wake, back=self._back)

    async def is_open(self, lane: str) -> bool:
        """Say whether a run that nothing blocks may be inserted as `queued`; a second old at most."""
        now = self._clock.monotonic()
        known = self._lanes.get(lane)
        if known is not None and now < known[1]:
            return known[0]
        # Whoever asks meanwhile goes by the old answer instead of waiting as well.
        self._lanes[lane] = (known is not None and known[0], now + KNOWN_FOR)
        is_open, closings = False, self._closings
        try:
            with anyio.move_on_after(_PATIENCE):
                is_open = lane in await self._broker.is_open([lane])
        except BrokerUnavailable:
            pass
        if closings == self._closings:
            self._lanes[lane] = (is_open, now + KNOWN_FOR)
        return self._lanes[lane][0]

    def close(self, lanes: Iterable[str]) -> None:
        """Stop inserting into these lanes as `queued`, from now on in this process."""
        self._closings += 1
        until = self._clock.monotonic() + KNOWN_FOR
        for lane in lanes:
            self._lanes[lane] = (False, until)

    def push(self, queued: Iterable[Queued | None]) -> None:
        """Offer runs that have been committed as queued."""
        self._queued.extend(run for run in queued if run is not None)
        self._wake.set()

    def wake_control(self) -> None:
        """Tell the leader that there is something to promote, fire or recount."""
        self.tell("wake:control", b"")

    def revived(self, runs: Iterable[UUID]) -> None:
        """Tell the leader, and every stream of events, of runs that had ended and wait again."""
        self.tell(REVIVED, b"".join(run_id.bytes for run_id in runs))
        self.wake_control()

    def settled(self, settled: Settled) -> None:
        """Pass on dependents that were set free."""
        if settled.queued:
            self.push(settled.queued)
        if settled.ready:
            self.wake_control()

    def cancel(self, requests: Iterable[tuple[UUID, UUID]]) -> None:
        """Tell workers that runs (run, worker) were asked to end."""
        for run_id, worker_id in requests:
            self.tell(f"worker:{worker_id}", str(run_id).encode())

    def nudge(self, worker_id: UUID) -> None:
        """Have a worker renew at once, and so hear what was asked of it."""
        self.tell(f"worker:{worker_id}", b"")

    def within_transaction(self) -> LaterOffers:
        """Return what takes these calls until a transaction is committed."""
        return LaterOffers(self)

    def release(self) -> None:
        """Do nothing: here everything is said at once."""

    def tell(self, channel: str, payload: bytes) -> None:
        """Publish a message soon; the same one only once."""
        self._messages[channel, payload] = None
        self._wake.set()

    async def step(self) -> float | None:
        """Send what has gathered. Raises BrokerUnavailable, having kept the newest of it if Redis is away."""
        queued, self._queued = self._queued, []
        messages, self._messages = self._messages, {}
        try:
            await reach(Point.OFFERS_SENDING, BrokerUnavailable)
            for start in range(0, len(queued), _BATCH):
                closings = self._closings
                opened = await self._broker.push(queued[start : start + _BATCH])
                if closings != self._closings:
                    continue
                until = self._clock.monotonic() + KNOWN_FOR
                for lane, is_open in opened.items():
                    self._lanes[lane] = (is_open, until)
            for channel, payload in messages:
                await self._broker.publish(channel, payload)
        except BrokerUnavailable:
            self.close({run.lane for run in queued} | self._lanes.keys())
            if not self._broker.available:  # else it refused this, and would again
                self._queued = [*queued, *self._queued][-_BATCH:]  # to say it twice does no harm
                self._messages = dict(list((messages | self._messages).items())[-_BATCH:])
            raise
        return 0.0 if self._queued or self._messages else None


class LaterOffers(Offers):
    """Gathers what a transaction that is still open has to say; `release` says it, once it is committed."""

    def __init__(self, beyond: Offers) -> None:
        self._beyond = beyond
        self._later: list[Callable[[], None]] = []

    async def is_open(self, lane: str) -> bool:
        """Say whether a run that nothing blocks may be inserted as `queued`; a second old at most."""
        return await self._beyond.is_open(lane)

    def close(self, lanes: Iterable[str]) -> None:
        """Stop inserting into these lanes as `queued`, from now on in this process."""
        self._beyond.close(lanes)

    def push(self, queued: Iterable[Queued | None]) -> None:
        """Offer runs once they have been committed as queued."""
        self._later.append(partial(self._beyond.push, list(queued)))

    def release(self) -> None:
        """Say all that was gathered."""
        for say in self._later:
            say()

    def tell(self, channel: str, payload: bytes) -> None:
        """Publish a message soon after the commit."""
        self._later.append(partial(self._beyond.tell, channel, payload))


def announce(offers: Offers | LaterOffers, created: Sequence[Created]) -> None:
    """Let Redis hear of tasks that were committed."""
    queued = [c.queued for c in created if c.queued is not None]
    if queued:
        offers.push(queued)
    if len(queued) < len(created):
        offers.wake_control()
