"""UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then a counter, then random bits, so that ids sort by time.

History is partitioned by id range, so the milliseconds are PostgreSQL's: `IdSource` adds the difference between the
database's clock and ours, as far as whoever uses it lets it `follow`.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.clock import Clock

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62


class IdSource:
    """Makes ids that strictly increase within one process, whatever the clock does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = timedelta()  # what to add to our clock to get PostgreSQL's
        self._last = (0, 0)

    def take(self, count: int) -> list[UUID]:
        """Return `count` new ids in ascending order."""
        noise = os.urandom(8 * count)
        now_ms = int((self._clock.now() + self._offset).timestamp() * 1000)
        ms, counter = self._last
        if now_ms > ms:
            ms, counter = now_ms, 0
        ids = []
        for i in range(count):
            counter += 1
            if counter > 0xFFF:
                ms, counter = ms + 1, 0
            tail = int.from_bytes(noise[8 * i : 8 * i + 8], "big") & 0x3FFF_FFFF_FFFF_FFFF
            ids.append(UUID(int=(ms << 80) | _VERSION_7 | (counter << 64) | _VARIANT | tail))
        self._last = (ms, counter)
        return ids

    def one(self) -> UUID:
        """Return one new id."""
        return self.take(1)[0]

    def follow(self, database_now: datetime, *, asked: datetime) -> None:
        """Follow PostgreSQL's clock, which showed `database_now` between `asked`, by ours, and now.

        An answer that was slow says little: the difference is changed by no more than the answer proves.
        """
        self._offset = min(max(self._offset, database_now - self._clock.now()), database_now - asked)


def first_id_at(moment: datetime) -> UUID:
    """Return the smallest id that can carry `moment`: the bound of a partition."""
    return UUID(int=(int(moment.timestamp() * 1000) << 80))
