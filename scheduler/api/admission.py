"""How much may wait: beyond `max_pending` nothing more is taken, instead of drowning later.

Counting a large backlog is dear, so it is counted only when it could have reached the bound: what was counted last plus
all that was taken since (and, for what other processes take, once a minute), and never for more than a twentieth of
the time.
"""

from __future__ import annotations

from scheduler.api.settings import ApiSettings
from scheduler.domain.clock import Clock
from scheduler.domain.errors import Overloaded
from scheduler.service import Wake
from scheduler.store.queues import Queues

_RECOUNT = 60.0  # seconds
_SHARE = 20.0


class Admission:
    """Knows an upper estimate of what waits; `step` counts it, run by a loop over `wake`."""

    def __init__(self, queues: Queues, clock: Clock, settings: ApiSettings) -> None:
        self.wake = Wake()
        self._queues = queues
        self._clock = clock
        self._settings = settings
        self._bound = settings.max_pending
        self._estimate = 0
        self._meanwhile = 0  # taken since the last count began
        self._not_before = 0.0

    def admit(self, namespace: str, count: int) -> None:
        """Take `count` more runs of a namespace into account. Raises Overloaded, counting nothing, beyond the bound."""
        del namespace  # bounds of its own come with the namespaces' quotas
        if self._estimate + count > self._bound:
            self.wake.set()
            raise Overloaded(f"{self._estimate} runs wait already; at most {self._bound} may", 5.0)
        self._estimate += count
        self._meanwhile += count
        if self._estimate * 10 > self._bound * 9:
            self.wake.set()

    async def step(self) -> float | None:
        """Count what waits."""
        started = self._clock.monotonic()
        if started < self._not_before:
            return self._not_before - started
        # What was taken shortly before may not be committed yet: rather count some twice than miss some.
        before, self._meanwhile = self._meanwhile, 0
        counted = await self._queues.waiting(self._bound + 1)
        self._estimate = counted + before + self._meanwhile
        took = self._clock.monotonic() - started
        self._not_before = started + took * (1 + _SHARE)
        return max(_RECOUNT, took * _SHARE)
