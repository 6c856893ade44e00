"""Whether a worker is dead, judged without comparing clocks.

A worker raises its lease number every few seconds. An observer that sees the number stand still for a whole lease, on
the observer's own monotonic clock, may reap it; the statement that reaps names the number, so a renewal that comes in
between saves the worker.

Time counts only between two successful reads that are close together. What lies between distant reads (the database
was away, this process was stopped) proves nothing, since the worker could not renew either: it is not counted, and
afterwards everybody has at least `grace` seconds to be heard again. So an outage never ends in a storm.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import msgspec


class Expired(msgspec.Struct, frozen=True, gc=False):
    """A worker whose lease number stood still at `renewal` for a whole lease."""

    worker_id: UUID
    renewal: int


class _Watched(msgspec.Struct, gc=False):
    renewal: int
    still: float = 0.0  # seconds for which the number was seen not to change


class LeaseObserver:
    """Feed it every successful read of the leases; all times in seconds on one monotonic clock."""

    def __init__(self, *, lease: float, max_gap: float = 2.0, grace: float | None = None) -> None:
        self._lease = lease
        self._max_gap = max_gap
        self._grace = lease / 3 if grace is None else grace
        self._workers: dict[UUID, _Watched] = {}
        self._last_received: float | None = None

    def observe(self, renewals: Mapping[UUID, int], *, sent: float, received: float) -> list[Expired]:
        """Take one read (worker → lease number), asked for at `sent`, answered at `received`; return who has expired.

        Workers that are absent are forgotten: somebody else has ended them.
        """
        still = self._counted(sent)
        known, self._workers = self._workers, {}
        expired = []
        for worker_id, renewal in renewals.items():
            watched = known.get(worker_id)
            if watched is None or watched.renewal != renewal:
                watched = _Watched(renewal)
            elif still is None:
                watched.still = min(watched.still, self._lease - self._grace)
            else:
                watched.still += still
            self._workers[worker_id] = watched
            if watched.still >= self._lease:
                expired.append(Expired(worker_id, renewal))
        self._last_received = received
        return expired

    def _counted(self, sent: float) -> float | None:
        """Return the seconds since the last read, or None if they prove nothing."""
        if self._last_received is None:
            return None
        gap = sent - self._last_received
        return gap if 0 <= gap <= self._max_gap else None
