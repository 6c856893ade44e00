"""Reconcile: whatever PostgreSQL knows and Redis, or a count, does not know any more is put right."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from scheduler.broker import BrokerUnavailable
from scheduler.control.leading import Leading
from scheduler.domain.run import Queued
from scheduler.domain.task import PRIORITIES
from scheduler.failpoints import Point, reach
from scheduler.pace import rest_after
from scheduler.store.execution import Settled
from scheduler.store.reconcile import Reconcile
from scheduler.store.schedules import Schedules
from scheduler.telemetry import get_logger

_PAGE: Final = 1000
_LONG_PAGE: Final = 5000  # of a read that costs next to nothing
_STALE_PAGE: Final = 500  # of what is pushed again and again while much is queued, nearly always in vain
_LATE_PAGE: Final = 500  # of what ends with all that waits for it
_IDLE_DELIVERY: Final = 10.0  # seconds after which an offer that was delivered and not settled is taken back
_TIDY_EVERY: Final = 60.0  # seconds

_log = get_logger("reconciler")


class Reconciler:
    """The mending loop of one term. Every step looks at one page of each kind."""

    def __init__(self, leading: Leading, reconcile: Reconcile, schedules: Schedules) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._broker = leading.broker
        self._dispatch = leading.dispatch
        self._clock = leading.clock
        self._promote = leading.promote
        self._reconcile = reconcile
        self._schedules = schedules
        self._places: list[tuple[str, int]] = []  # lanes and priorities still to look at in this sweep
        self._after_queued: tuple[datetime, UUID] | None = None
        self._stale_after = leading.settings.stale_after  # in this sweep
        self._missed = False  # Redis was away: it does not know what has been queued meanwhile, however young
        self._after_fire: tuple[UUID, datetime] | None = None
        self._after_upstream: UUID | None = None
        self._after_blocked: UUID | None = None
        self._tidied_at: float | None = None

    async def step(self) -> float:
        """Mend one page of everything. Raises TermLost, StoreUnavailable; Redis being away only skips its part."""
        try:
            await self._rebuild_lanes()
            began = self._clock.monotonic()  # that was no look
            lanes = await self._dispatch.lanes()
            await self._push_stale([lane.lane for lane in lanes if not lane.paused])
            await self._broker.reclaim_idle([lane.lane for lane in lanes], _IDLE_DELIVERY)
        except BrokerUnavailable:
            self._places.clear()  # begin anew when it is back
            self._missed = True
            began = self._clock.monotonic()  # nor was waiting for Redis in vain
        await self._withdraw_paused()
        await self._give_up_late()
        await self._mend_dependents()
        await self._judge_held_letters()
        await self._tidy()
        return rest_after(self._clock.monotonic() - began, self._settings.reconcile_every)

    async def _rebuild_lanes(self) -> None:
        """Fill every lane from PostgreSQL if Redis, or the database, is not the one that they were filled for."""
        servers = f"{await self._reconcile.identity()} {await self._broker.incarnation()}"
        if servers == await self._reconcile.lanes_built_for():
            return
        lanes = [lane.lane for lane in await self._dispatch.lanes()]
        pushed = 0
        for lane in lanes:
            await self._broker.clear(lane)
            await reach(Point.LANE_CLEARED, BrokerUnavailable)
            for priority in PRIORITIES:
                after: tuple[datetime, UUID] | None = None
                while True:
                    page = await self._reconcile.stale_queued(lane, priority, after=after, older_than=0.0, limit=_PAGE)
                    await self._push(page.runs)
                    pushed += len(page.runs)
                    after = page.after
                    if after is None:
                        break
        await self._reconcile.note_lanes_built(self._epoch, servers)
        self._promote()
        _log.info("rebuilt the lanes", lanes=len(lanes), runs=pushed, servers=servers)

    async def _push_stale(self, lanes: Sequence[str]) -> None:
        """Push a page of what has been queued in `lanes` for long; the broker takes what it does not know."""
        if not self._places:
            self._places = sorted(await self._dispatch.queued_by_lane(lanes, 1))
            self._after_queued = None
            self._stale_after = 0.0 if self._missed else self._settings.stale_after
            self._missed = False
        left = _STALE_PAGE
        while self._places and left > 0:
            lane, priority = self._places[-1]
            page = await self._reconcile.stale_queued(
                lane, priority, after=self._after_queued, older_than=self._stale_after, limit=left
            )
            await self._push(page.runs)
            left -= len(page.runs)
            self._after_queued = page.after
            if page.after is None:
                self._places.pop()

    async def _withdraw_paused(self) -> None:
        if withdrawn := await self._reconcile.withdraw_paused(self._epoch, limit=_PAGE):
            _log.info("withdrew runs of paused queues", runs=withdrawn)

    async def _give_up_late(self) -> None:
        late, settled = await self._reconcile.give_up_late(self._epoch, limit=_LATE_PAGE)
        self._follow(settled)
        if late:
            _log.info("gave up runs that should have started", runs=late)

    async def _mend_dependents(self) -> None:
        bound, self._after_fire = await self._schedules.bind_page(self._epoch, after=self._after_fire, limit=_PAGE)
        self._follow(bound)
        upstreams = await self._reconcile.settle_missed(self._epoch, after=self._after_upstream, limit=_LONG_PAGE)
        self._after_upstream = upstreams.after
        self._follow(upstreams.settled)
        blocked = await self._reconcile.recount(self._epoch, after=self._after_blocked, limit=_PAGE)
        self._after_blocked = blocked.after
        self._follow(blocked.settled)
        if upstreams.wrong or blocked.wrong:
            _log.info("mended dependents", unseen_ends=upstreams.wrong, wrong_counts=blocked.wrong)

    async def _judge_held_letters(self) -> None:
        if reopened := await self._reconcile.judge_held_letters(self._epoch, limit=_PAGE):
            _log.info("opened dead letters again whose canaries did not complete", letters=reopened)

    async def _tidy(self) -> None:
        now = self._clock.monotonic()
        if self._tidied_at is not None and now - self._tidied_at < _TIDY_EVERY:
            return
        while cleared := await self._reconcile.clear_deleted_namespaces(self._epoch, limit=_PAGE):
            _log.info("cleared namespaces that are deleted", tasks_and_runs=cleared)
        while await self._reconcile.forget_answers(self._epoch, limit=_PAGE) == _PAGE:
            pass
        await self._reconcile.forget_workers(self._epoch, older_than=self._settings.dead_workers)
        self._tidied_at = now

    def _follow(self, settled: Settled) -> None:
        if settled.ready:
            self._promote()

    async def _push(self, runs: Sequence[Queued]) -> None:
        if runs:
            await self._broker.push(runs)
