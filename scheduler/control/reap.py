"""Reap: workers whose lease has expired are ended, and their runs go on elsewhere."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import asyncpg

from scheduler.broker import BrokerUnavailable
from scheduler.control.leading import Leading
from scheduler.control.observe import Observer
from scheduler.store.reaping import Reaped, Reaping
from scheduler.telemetry import get_logger

_log = get_logger("reaper")


class Reaper:
    """The reaping loop of one term."""

    def __init__(self, leading: Leading, reaping: Reaping, observer: Observer) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._broker = leading.broker
        self._dispatch = leading.dispatch
        self._promote = leading.promote
        self._reaping = reaping
        self._observer = observer

    async def step(self) -> float:
        """End everybody who has expired. Raises TermLost, StoreUnavailable.

        Where somebody else holds what is to be written, LockNotAvailableError once all others have been ended.
        """
        held_up = [await self._try_to_reap(expired.worker_id, expired.renewal) for expired in self._observer.expired]
        held_up += [await self._try_to_reap(worker_id, None) for worker_id in await self._reaping.orphans()]
        for error in filter(None, held_up):
            raise error
        return self._settings.poll

    async def _try_to_reap(self, worker_id: UUID, renewal: int | None) -> asyncpg.LockNotAvailableError | None:
        try:
            await self._reap(worker_id, renewal)
        except asyncpg.LockNotAvailableError as error:
            return error
        return None

    async def _reap(self, worker_id: UUID, renewal: int | None) -> None:
        reaped = await self._reaping.reap(worker_id, renewal=renewal, epoch=self._epoch)
        if reaped.promotable:
            self._promote()
        if reaped.applied or reaped.states:
            _log.warning("reaped", worker=str(worker_id), applied=reaped.applied, runs=dict(reaped.states))
            await self._clean_up(worker_id, reaped)

    async def _clean_up(self, worker_id: UUID, reaped: Reaped) -> None:
        """Take the dead worker's credit away; what it was offered and never claimed goes to others."""
        with suppress(BrokerUnavailable):
            await self._broker.forget_worker([lane.lane for lane in await self._dispatch.lanes()], worker_id)
            if reaped.settled.queued:
                await self._broker.push(reaped.settled.queued)
