"""How often somebody may be wrong about who they are before they have to wait.

Nobody guesses 256 bits. What this is for is the cost of a wrong try, which makes the server ask its database: after a
few free ones each further one doubles the wait of whoever made it. Counted for each pair of client address and key id,
and, far more patiently, for each address as a whole, behind which there may be many. Who has been right lately is not
made to wait, or anybody behind the same proxy could lock others out. All of it is bounded: what was longest ago is
forgotten first.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from scheduler.domain.errors import TooMany

FREE = 5
FREE_FOR_ADDRESS = 100
LONGEST = 60.0
FORGOTTEN_AFTER = 900.0
BOUND = 10_000


class _Record(msgspec.Struct):
    count: int
    last: float
    until: float


class Failures:
    """Failures by subject. Times are monotonic seconds."""

    def __init__(self, monotonic: Callable[[], float], *, bound: int = BOUND) -> None:
        self._monotonic = monotonic
        self._bound = bound
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._good: OrderedDict[tuple[str, str], float] = OrderedDict()

    def check(self, address: str, subject: str) -> None:
        """Raise TooMany if `subject` (a key's id, or the hash of a token) has to wait at this address."""
        now = self._monotonic()
        place = _network(address)
        if self._good.get((place, subject), -FORGOTTEN_AFTER) > now - FORGOTTEN_AFTER:
            return
        for key in ((place, subject), (place, "")):
            record = self._records.get(key)
            if record is not None and record.until > now:
                raise TooMany("too many attempts with credentials that do not hold", record.until - now)

    def failed(self, address: str, subject: str, *, ended: bool) -> None:
        """Count a failure; `ended` if these are true credentials that hold no longer: being right lately is over."""
        now = self._monotonic()
        place = _network(address)
        if ended:
            self._good.pop((place, subject), None)
        for key, free in (((place, subject), FREE), ((place, ""), FREE_FOR_ADDRESS)):
            record = self._records.pop(key, None)
            if record is None or record.last < now - FORGOTTEN_AFTER:
                record = _Record(0, now, 0.0)
            record.count += 1
            record.last = now
            if record.count >= free:
                record.until = now + min(LONGEST, 2.0 ** min(record.count - free, 10))
            self._records[key] = record
        while len(self._records) > self._bound:
            self._records.popitem(last=False)

    def succeeded(self, address: str, subject: str) -> None:
        """Forget the failures of a pair that has been right."""
        pair = (_network(address), subject)
        self._records.pop(pair, None)
        self._good.pop(pair, None)
        self._good[pair] = self._monotonic()
        while len(self._good) > self._bound:
            self._good.popitem(last=False)


def _network(address: str) -> str:
    """Return what one client has to itself: an IPv4 address, or the /64 of an IPv6 one."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
