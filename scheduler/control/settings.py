"""What the scheduler role can be told; every duration is in seconds."""

from __future__ import annotations

import msgspec

from scheduler.broker import WINDOW
from scheduler.domain.task import HISTORY

_DAY = 86400.0


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Plain values, checked by whoever read them. The database pool should allow `CONNECTIONS` connections."""

    lock_ttl: float = 5.0
    """How long a term outlives its last renewal: the longest wait for a successor after a crash."""

    window: int = WINDOW
    """Most runs that stand queued in one lane and priority."""

    poll: float = 1.0
    """How often the leader looks without having been woken."""

    batch: int = 1000
    """Most rows that one statement writes."""

    stale_after: float = 3.0
    """How long a run may stand queued before the reconciler asks the broker whether it knows it."""

    reconcile_every: float = 2.0
    """How often the reconciler takes its next step."""

    retention: float = HISTORY
    """How long history is kept; it goes by whole weeks."""

    dead_letters: float = 30 * _DAY
    """How long a dead letter is kept once it was replayed or discarded."""

    undecided: float = 90 * _DAY
    """How long a dead letter stays open, and with it the history of its week, while nobody decides about it."""

    weeks_ahead: int = 2
    """Partitions made before they are needed."""

    dead_workers: float = _DAY
    """How long the row of an ended worker is kept."""

    drain: float = 1.0
    """How long a leader that stops on purpose waits for its statements under way."""


CONNECTIONS = 13
"""Connections that the role may use at the same time: one for each of its loops, so that none waits for another."""
