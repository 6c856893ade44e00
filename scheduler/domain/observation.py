"""Whether a worker is dead, judged without comparing clocks.

A worker raises its lease number every few seconds. An observer that sees the number stand still for a whole lease, on
the observer's own monotonic clock, may reap it; the statement that reaps names the number, so a renewal that comes in
between saves the worker.

Time counts only between two successful reads that are close together. What lies between distant reads (the database
was away, this process was stopped) proves nothing, since the worker could not renew either: it is not counted, and
afterwards everybody has at least a third of a lease to be heard again. So an outage never ends in a storm.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import msgspec

GRACE = 1 / 3
"""The share of its lease that a worker has at least to be heard again, once reads that were interrupted go on."""


class Expired(msgspec.Struct, frozen=True, gc=False):
    """A worker whose lease number stood still at `renewal` for a whole lease."""

    worker_id: UUID
    renewal: int


class SeenLease(msgspec.Struct, frozen=True, gc=False):
    """A worker's lease as one read found it: its number, and how many seconds it lasts (the worker decides that)."""

    renewal: int
    lasts: float


class _Watched(msgspec.Struct, gc=False):
    renewal: int
    still: float = 0.0  # seconds for which the number was seen not to change


class LeaseObserver:
    """Feed it every successful read of the leases; all times in seconds on one monotonic clock."""

    def __init__(self, *, max_gap: float = 2.0) -> None:
        self._max_gap = max_gap
        self._workers: dict[UUID, _Watched] = {}
        self._last_received: float | None = None

    def observe(self, leases: Mapping[UUID, SeenLease], *, sent: float, received: float) -> list[Expired]:
        """Take one read (worker → lease), asked for at `sent`, answered at `received`; return who has expired.

        Workers that are absent are forgotten: somebody else has ended them.
        """
        still = self._counted(sent)
        known, self._workers = self._workers, {}
        expired = []
        for worker_id, lease in leases.items():
            watched = known.get(worker_id)
            if watched is None or watched.renewal != lease.renewal:
                watched = _Watched(lease.renewal)
            elif still is None:
                watched.still = min(watched.still, lease.lasts * (1 - GRACE))
            else:
                watched.still += still
            self._workers[worker_id] = watched
            if watched.still >= lease.lasts:
                expired.append(Expired(worker_id, lease.renewal))
        self._last_received = received
        return expired

    def _counted(self, sent: float) -> float | None:
        """Return the seconds since the last read, or None if they prove nothing."""
        if self._last_received is None:
            return None
        gap = sent - self._last_received
        return gap if 0 <= gap <= self._max_gap else None
