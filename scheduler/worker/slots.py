"""The slots of a worker: how many commands may start now."""

from __future__ import annotations

import anyio

from scheduler.domain.clock import Clock


class Slots:
    """Counts free slots; there are none while more than `UNFINISHED` outcomes a slot wait to be committed."""

    UNFINISHED = 8

    def __init__(self, total: int, clock: Clock) -> None:
        self.total = total
        self._clock = clock
        self._busy = 0
        self._unfinished = 0
        self._changed = anyio.Event()
        self._claimed_at = clock.monotonic()

    @property
    def free(self) -> int:
        """How many more runs may be claimed."""
        if self._unfinished >= self.UNFINISHED * self.total:
            return 0  # the database does not keep up, or is away
        return self.total - self._busy

    def take(self) -> None:
        """Use a slot, for a run that was claimed."""
        self._claimed_at = self._clock.monotonic()
        self._busy += 1
        self._unfinished += 1

    def release(self) -> None:
        """Give a slot back: its command is gone."""
        self._busy -= 1
        self._changed.set()

    def finished(self) -> None:
        """Note that a run that had a slot is done with altogether."""
        self._unfinished -= 1
        self._changed.set()

    async def wait_free(self, patience: float) -> int:
        """Wait until it pays to claim, and return how many slots are free (at least one).

        A quarter of the slots is worth a claim, or of many slots all but 32, for which its processors have work enough
        meanwhile; fewer are, once nothing was claimed for `patience` seconds. A worker that is not busy never
        waits here.
        """
        worth = max(1, min(self.total // 2, max(self.total // 4, self.total - 32)))
        while (free := self.free) < worth:
            left = None
            if free > 0:
                left = self._claimed_at + patience - self._clock.monotonic()
                if left <= 0:
                    return free
            if self._changed.is_set():  # others may wait for the same event: replacing it would leave them behind
                self._changed = anyio.Event()
            with anyio.move_on_after(left):
                await self._changed.wait()
        return free
