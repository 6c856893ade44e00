"""How often one principal may ask in one namespace: a token bucket each, in this process.

Off unless a rate is set. Several API processes count apart, so a principal that spreads its requests may get the rate
of each. Nobody is forgotten before the bucket would be full again, except when there are very many: then whoever asked
longest ago.
"""

from __future__ import annotations

from collections import OrderedDict

from scheduler.domain.bucket import Bucket, Rate
from scheduler.domain.clock import Clock
from scheduler.domain.errors import TooMany

_REMEMBERED = 10_000


class Throttle:
    """Counts requests."""

    def __init__(self, clock: Clock, per_second: float, burst: int) -> None:
        self._monotonic = clock.monotonic
        self._rate = Rate(per_second, max(1.0, float(burst or per_second)))
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def take(self, namespace: str, actor: str) -> None:
        """Count one request. Raises TooMany, counting nothing."""
        rate = self._rate
        if not rate.per_second:
            return
        now, key = self._monotonic(), (namespace, actor)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(rate, now)
            if len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        if wait := bucket.take(rate, now):
            raise TooMany(f"at most {rate.per_second:g} requests a second, {rate.burst:g} at once", wait)
