"""Cycles of garbage: nearly none are made while all is well, so they are looked for rarely, but found in the end.

An outage leaves some (errors, with the frames and sockets that they refer to), and what was young when it happened may
lie among the old until many more objects have been made than a process without work ever makes.
"""

from __future__ import annotations

import gc

from scheduler.domain.clock import Clock

_THRESHOLDS = (20_000, 20, 20)
"""Collect less often than by default: a batch makes many objects, and next to none of them are in a cycle."""

_RARELY = 60.0
_SHARE = 1000  # of the time


def begin() -> None:
    """Leave what was imported out of every collection: it stays."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()


class Collection:
    """Collects everything once a minute, or less often where that would take more than a thousandth of the time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def step(self) -> float:
        """Collect; return the seconds until the next time."""
        began = self._clock.monotonic()
        gc.collect()
        return max(_RARELY, _SHARE * (self._clock.monotonic() - began))
