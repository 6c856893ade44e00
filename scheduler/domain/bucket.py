"""Token buckets: so many a second on average, and a burst of so many at once."""

from __future__ import annotations

import msgspec


class Rate(msgspec.Struct, frozen=True):
    """`per_second` tokens trickle into a bucket that holds `burst`."""

    per_second: float
    burst: float


class Bucket:
    """One bucket, full to begin with. Times are monotonic seconds."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._tokens = rate.burst
        self._at = now

    def take(self, rate: Rate, now: float, count: int = 1) -> float:
        """Take tokens and return 0 if there is one (the others may be owed), else take none and return the wait.

        The wait is in seconds, until there is one.
        """
        self._tokens = self.level(rate, now)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= count
            return 0.0
        return (1 - self._tokens) / rate.per_second

    def level(self, rate: Rate, now: float) -> float:
        """Return how many tokens there are."""
        return min(rate.burst, self._tokens + (now - self._at) * rate.per_second)
