"""Who leads: a standby takes a free term, the leader keeps renewing it, and stops in time when it cannot.

The term in PostgreSQL decides. The Redis lock only sends one of several standbys ahead of the others; without Redis,
or with a lock that nobody frees, they simply race for the row, and one wins.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

import anyio
import msgspec

from scheduler.broker import Broker, BrokerUnavailable
from scheduler.control.patience import answer_within
from scheduler.domain.clock import Clock
from scheduler.domain.ids import IdSource
from scheduler.domain.term import TermLease, TermLost, TermReading, TermWatch
from scheduler.failpoints import Point, reach
from scheduler.health import Health
from scheduler.service import Wake
from scheduler.store.database import StoreUnavailable
from scheduler.store.terms import Terms
from scheduler.telemetry import get_logger

CHANNEL: Final = "wake:election"
_QUEUE_FOR: Final = 0.05  # seconds between two looks while another standby has the lock

_log = get_logger("election")


class Holder(msgspec.Struct, frozen=True):
    """One candidate: a new id for every start of a process, and where to find it."""

    id: UUID
    host: str
    pid: int


class Term:
    """A term that this process holds, or has held: shared by everything that leads."""

    def __init__(self, epoch: int, lease: TermLease) -> None:
        self.epoch = epoch
        self.lease = lease
        self.planned = False
        """Set if the term was given up, so that steps under way may be finished."""

        self.over = anyio.Event()
        """Set as soon as the term is lost or given up: whatever leads is to end."""

        self.handed_over = anyio.Event()
        """Set once nothing of this process leads any more."""

    def notice(self, error: Exception) -> None:
        """End the term if a step failed because it had been lost: the `on_error` of every leading loop."""
        if isinstance(error, TermLost):
            self.over.set()


class Election:
    """The loop of a candidate. `lead(term)` starts leading in the background; it ends by `term.over`."""

    def __init__(
        self,
        *,
        holder: Holder,
        ttl: float,
        terms: Terms,
        broker: Broker,
        ids: IdSource,
        clock: Clock,
        health: Health,
        lead: Callable[[Term], None],
    ) -> None:
        self.wake = Wake()
        self._holder = holder
        self._ttl = ttl
        # A successor comes late by up to a pause between its looks; and by one between renewals where the last one
        # arrived although its answer was lost.
        self._look_every = ttl / 10
        self._renew_every = ttl / 5
        self._keep_lock_every = ttl / 3  # it holds for `ttl`, so every other renewal is soon enough
        self._terms = terms
        self._broker = broker
        self._ids = ids
        self._clock = clock
        self._health = health
        self._lead = lead
        self._watch = TermWatch(ttl, holder.id)
        self._free_since: float | None = None
        self._lock_kept = -math.inf
        self._term: Term | None = None

    async def step(self) -> float:
        """Look at the term once: renew ours, or see whether there is one to take. Raises StoreUnavailable."""
        if self._term is not None:
            if not self._term.over.is_set():
                return await self._renew(self._term)
            await self._step_down(self._term)
        return await self._stand_by()

    async def resign(self) -> None:
        """Give the term up, if there is one, and call the standbys. The loop must have ended."""
        term, self._term = self._term, None
        if term is None:
            return
        term.planned = not term.over.is_set()
        term.over.set()
        await term.handed_over.wait()
        released = False
        with suppress(StoreUnavailable), answer_within(self._ttl):
            released = await self._terms.release(term.epoch, self._holder.id)
        await self._tell(self._broker.release_lock(str(self._holder.id)))
        await self._tell(self._broker.publish(CHANNEL))
        _log.info("resigned", epoch=term.epoch, released=released)

    async def _stand_by(self) -> float:
        asked, sent = self._clock.now(), self._clock.monotonic()
        with answer_within(self._ttl):
            reading, now = await self._terms.read()
        received = self._clock.monotonic()
        self._ids.follow(now, asked=asked)
        self._health.report("scheduler.term", True, f"standby: epoch {reading.epoch}, held by {reading.holder}")
        left = self._watch.observe(reading, sent=sent, received=received)
        if left > 0:
            self._free_since = None
            return min(left, self._look_every)
        if self._free_since is None:
            self._free_since = received
        if not await self._is_our_turn(received - self._free_since):
            return _QUEUE_FOR
        return await self._take(reading)

    async def _is_our_turn(self, waited: float) -> bool:
        """Let one standby go first; whoever has waited for long goes anyway."""
        with suppress(BrokerUnavailable), anyio.move_on_after(self._ttl / 10):
            return await self._broker.try_lock(str(self._holder.id), self._ttl) or waited > self._ttl / 5
        return True

    async def _take(self, seen: TermReading) -> float:
        self._free_since = None
        sent = self._clock.monotonic()
        with answer_within(self._ttl):
            epoch = await self._terms.take(seen, self._holder.id, host=self._holder.host, pid=self._holder.pid)
        if epoch is None:
            return 0.0
        await reach(Point.TERM_TAKEN)
        self._term = Term(epoch, TermLease(self._ttl, sent=sent))
        self._watch = TermWatch(self._ttl, self._holder.id)
        _log.info("leading", epoch=epoch)
        self._health.report("scheduler.term", True, f"leading: epoch {epoch}")
        self._lead(self._term)
        return self._renew_every

    async def _renew(self, term: Term) -> float:
        asked, sent = self._clock.now(), self._clock.monotonic()
        left = term.lease.remaining(sent)
        try:
            with answer_within(max(left, 0)):
                await reach(Point.TERM_RENEWING, StoreUnavailable)
                now = await self._terms.renew(term.epoch, self._holder.id)
        except StoreUnavailable as error:
            if term.lease.remaining(self._clock.monotonic()) > 0:
                self._health.report("scheduler.term", False, f"leading, renewal failed: {error}")
                return self._ttl / 20
            now = None
        if now is None:
            term.over.set()
            return 0.0
        self._ids.follow(now, asked=asked)
        term.lease.confirmed(sent=sent)
        self._health.report("scheduler.term", True, f"leading: epoch {term.epoch}")
        if sent - self._lock_kept >= self._keep_lock_every:
            self._lock_kept = sent
            await self._tell(self._keep_lock())
        return self._renew_every

    async def _step_down(self, term: Term) -> None:
        _log.warning("stepped down", epoch=term.epoch)
        self._health.report("scheduler.term", True, "standby")
        await term.handed_over.wait()
        self._term = None

    async def _keep_lock(self) -> None:
        holder = str(self._holder.id)
        if not await self._broker.renew_lock(holder, self._ttl):
            await self._broker.try_lock(holder, self._ttl)

    async def _tell(self, call: Awaitable[object]) -> None:
        """Do something in Redis that only makes the next change of leaders quicker; no renewal waits for it long."""
        with suppress(BrokerUnavailable), anyio.move_on_after(self._ttl / 10):
            await call
