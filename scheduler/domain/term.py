"""One leader's reign, judged by whoever looks at it.

The row in PostgreSQL is the only authority; nobody compares its timestamps with a clock. A standby watches the row's
renewal number and lets its own monotonic clock say how long it has stood still. The leader counts from the moment
*before* it sent the last renewal that was confirmed, so it always stops before anybody else may begin.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

MARGIN = 0.2
"""The share of the TTL by which a leader stops early: its clock and its successor's need not run equally fast."""


class TermLost(Exception):
    """A leader's statement found its epoch gone: it has written nothing, and another leads."""


class TermReading(msgspec.Struct, frozen=True, gc=False):
    """The leadership row as one read found it. `holder` is None once released, and before the very first term."""

    epoch: int
    holder: UUID | None
    renewal: int


class TermWatch:
    """A standby's view: whether it may take the term now, and if not, when to look again.

    All moments are seconds on the standby's own monotonic clock. `me` is its id as a holder: a term that is held by
    itself, because it took it or lost it without having heard so, is free.
    """

    def __init__(self, ttl: float, me: UUID) -> None:
        self._ttl = ttl
        self._me = me
        self._seen: TermReading | None = None
        self._since = 0.0

    def observe(self, reading: TermReading, *, sent: float, received: float) -> float:
        """Return for how many seconds the term still has to stand still before it may be taken; ≤ 0: now.

        The row is known to have stood still from the moment its first reading had arrived until the moment the latest
        one was asked for.
        """
        if reading.holder is None or reading.holder == self._me:
            self._seen = reading
            return 0.0
        if reading != self._seen:
            self._seen, self._since = reading, received
            return self._ttl
        return self._ttl - (sent - self._since)


class TermLease:
    """A leader's own view of its term: until when it may believe that it still leads."""

    def __init__(self, ttl: float, *, sent: float) -> None:
        self._lifetime = ttl * (1 - MARGIN)
        self._until = sent + self._lifetime

    def confirmed(self, *, sent: float) -> None:
        """Note that the renewal sent at `sent` was confirmed."""
        self._until = max(self._until, sent + self._lifetime)

    def remaining(self, at: float) -> float:
        """Return how many seconds of the term are left at `at`; ≤ 0: step down."""
        return self._until - at
