"""Promote: runs that have fallen due, or whose last dependency was met, are queued and offered to the workers.

Runs behind gates follow in the same step, as far as these allow and the windows have room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import anyio

from scheduler.broker import BrokerUnavailable, LaneStats
from scheduler.control.gatekeep import Gatekeeper
from scheduler.control.leading import Leading
from scheduler.control.sweep import Sweep
from scheduler.domain.run import Queued
from scheduler.domain.task import PRIORITIES
from scheduler.failpoints import Point, reach
from scheduler.pace import Pace

_UNWOKEN: Final = 0.25  # seconds between looks while Redis is away
_PATIENCE: Final = 0.3  # seconds that Redis may take to say where there is room, before PostgreSQL is asked

Rooms = dict[tuple[str, int], int]


class Promoter:
    """The promoting loop of one term."""

    def __init__(self, leading: Leading) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._broker = leading.broker
        self._dispatch = leading.dispatch
        self._gatekeeper = Gatekeeper(leading, leading.dispatch.gates)
        self._clock = leading.clock
        self._reconcile = leading.reconcile
        self._pace = Pace(leading.settings.poll)
        self._sweep = Sweep()

    async def step(self) -> float:
        """Queue one batch; return when there will be more to queue. Raises StoreUnavailable."""
        lanes = [lane.lane for lane in await self._dispatch.lanes() if not lane.paused]
        rooms, closed = await self._rooms(lanes)
        wanted = {key: min(places, self._settings.batch) for key, places in rooms.items()}
        promoted = await self._look(wanted)
        await reach(Point.PROMOTED)
        await self._offer(promoted)
        await self._open(closed - _unfinished(wanted, promoted))
        gatekept = await self._gatekeeper.step(_left(rooms, promoted))
        await self._offer(gatekept.queued)
        if promoted or gatekept.delay == 0.0:
            return 0.0
        # Only where there is room: what waits for a place is due as well, and the places are looked at by and by.
        due = await self._dispatch.next_due([key for key, places in wanted.items() if places > 0], self._sweep.after)
        delay = self._pace.until(due)
        if gatekept.delay is not None:
            delay = min(delay, gatekept.delay)
        return delay if self._broker.available else min(delay, _UNWOKEN)  # nobody can wake us without Redis

    async def _look(self, wanted: Rooms) -> list[Queued]:
        began = self._clock.monotonic()
        self._sweep.begin(began)
        promoted = await self._dispatch.promote(self._epoch, wanted, self._sweep.after)
        now = self._clock.monotonic()
        self._sweep.end(now, now - began, self._clock.now(), wanted, promoted)
        return promoted

    async def _rooms(self, lanes: Sequence[str]) -> tuple[Rooms, set[str]]:
        """Return the free places by lane and priority, and the lanes whose fast path is closed."""
        try:
            with anyio.fail_after(_PATIENCE):
                stats: Mapping[str, LaneStats] = await self._broker.stats(lanes)
                closed = {lane for lane in lanes if not stats[lane].open}
                if closed and not await self._broker.is_marked():
                    self._reconcile()  # it was wiped, flags and all
        except (BrokerUnavailable, TimeoutError):
            queued = await self._dispatch.queued_by_lane(lanes, self._settings.window)
            return {
                (lane, p): self._settings.window - queued.get((lane, p), 0) for lane in lanes for p in PRIORITIES
            }, set()
        rooms = {(lane, p): self._settings.window - stats[lane].ready[p] for lane in lanes for p in PRIORITIES}
        return rooms, closed

    async def _offer(self, promoted: Sequence[Queued]) -> None:
        if promoted:
            try:
                await self._broker.push(promoted)
            except BrokerUnavailable:
                return  # workers find them in PostgreSQL, and the reconciler pushes them once Redis is back

    async def _open(self, lanes: set[str]) -> None:
        try:
            for lane in lanes:
                await self._broker.mark_open(lane)
        except BrokerUnavailable:
            return  # the flag went with Redis, and stays down until a later step


def _unfinished(wanted: Rooms, promoted: Sequence[Queued]) -> set[str]:
    """Return the lanes where more may be promotable: a place was missing, or every place was used."""
    return {lane for (lane, _), places in _left(wanted, promoted).items() if places <= 0}


def _left(rooms: Rooms, promoted: Sequence[Queued]) -> Rooms:
    """Return the places that these runs have left."""
    left = dict(rooms)
    for run in promoted:
        left[run.lane, run.priority] -= 1
    return left
