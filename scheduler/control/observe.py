"""Watching the workers' leases. Every scheduler does it all the time, so that a new leader need not begin from zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from scheduler.control.patience import answer_within
from scheduler.domain.clock import Clock
from scheduler.domain.observation import Expired, LeaseObserver
from scheduler.store.reaping import Reaping

EVERY: Final = 0.75
"""Seconds between two reads; what lies between reads that are more than 2 s apart does not count."""

_PATIENCE: Final = 5.0


class Observer:
    """Reads all lease numbers and keeps who has expired; `on_expired` is called whenever somebody has."""

    def __init__(self, reaping: Reaping, *, clock: Clock, on_expired: Callable[[], None]) -> None:
        self.expired: Sequence[Expired] = ()
        self._reaping = reaping
        self._clock = clock
        self._leases = LeaseObserver()
        self._on_expired = on_expired

    async def step(self) -> float:
        """Take one read. Raises StoreUnavailable; then nothing that was seen before counts as unchanged until now."""
        sent = self._clock.monotonic()
        try:
            with answer_within(_PATIENCE):
                leases = await self._reaping.leases()
        except BaseException:
            self.expired = ()
            raise
        self.expired = self._leases.observe(leases, sent=sent, received=self._clock.monotonic())
        if self.expired:
            self._on_expired()
        return EVERY
