"""The deadline rule of a worker's lease.

Whoever may take a worker's runs away waits `ttl` after the last change of its lease number. The worker counts from the
moment before it sent the renewal that succeeded, and stops `margin` earlier than that: then nothing of its tasks is
left when the runs move, however slow the network was. All moments are seconds of CLOCK_BOOTTIME.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal["none", "held", "ending", "killing", "over"]


class LeaseTerms(msgspec.Struct, frozen=True):
    """How long a lease lasts; all but `ttl` follow from it. Seconds."""

    ttl: float = 15.0

    @property
    def renew_every(self) -> float:
        """The time between renewals: four may fail in a row."""
        return self.ttl / 5

    @property
    def lasts(self) -> float:
        """From sending a renewal until no process may be left."""
        return self.ttl * 4 / 5

    @property
    def grace(self) -> float:
        """Before the deadline: tasks are asked to end."""
        return self.ttl / 5

    @property
    def last_moment(self) -> float:
        """Before the deadline: the worker kills its tasks itself, so that the guard need not kill the worker."""
        return self.ttl / 15


class LeaseClock:
    """What the present lease allows."""

    def __init__(self, terms: LeaseTerms) -> None:
        self.terms = terms
        self.deadline = 0.0

    def renewed(self, sent_at: float) -> None:
        """Note a successful renewal that was sent at `sent_at`."""
        self.deadline = max(self.deadline, sent_at + self.terms.lasts)

    @property
    def ask_at(self) -> float:
        """When tasks are asked to end, unless the lease is renewed before."""
        return self.deadline - self.terms.grace

    @property
    def kill_at(self) -> float:
        """When the worker kills what is left."""
        return self.deadline - self.terms.last_moment

    def phase(self, now: float) -> Phase:
        """Say what `now` demands: `ending`: ask tasks to end; `killing`: kill them; `over`: none may be left."""
        if self.deadline <= 0:
            return "none"
        if now < self.ask_at:
            return "held"
        if now < self.kill_at:
            return "ending"
        return "killing" if now < self.deadline else "over"

    def next_change(self, now: float) -> float:
        """Return the seconds until the phase changes by itself; 0 when it no longer will."""
        return next((moment - now for moment in (self.ask_at, self.kill_at, self.deadline) if now < moment), 0.0)
