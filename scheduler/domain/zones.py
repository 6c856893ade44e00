"""Time zones as stretches of constant offset, which is what a schedule needs to know about daylight saving.

`zoneinfo` answers "what is the offset at this instant" but not "when does it change next". `Zone.stretch` answers
both. Instants are whole seconds since 1970 UTC; offsets are seconds east of UTC; instant + offset is the local time,
counted in seconds as if the local clock were UTC ("wall seconds").
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

DAY = 86400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

_YEARS_KEPT = 128  # of each zone, so that looking far ahead or back takes no memory for good
_NOT_ZONES = frozenset({"localtime", "posixrules", "Factory"})
_NOT_ZONE_PREFIXES = ("posix/", "right/")  # `right/` counts leap seconds, which our instants do not


class Stretch(NamedTuple):
    """The offset is `offset` from `start` up to `end` (excluded); `before` is the offset just before `start`.

    `offset > before`: the clock went forward at `start`, local times were left out. `offset < before`: it went back,
    local times come a second time. Equal: `start` is only the turn of a year.
    """

    start: int
    end: int
    offset: int
    before: int


class Zone:
    """One IANA zone; its stretches are found when first asked for and kept by year."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.info = ZoneInfo(name)
        self._years: dict[int, tuple[list[int], list[Stretch]]] = {}
        self._latest = Stretch(0, 0, 0, 0)

    def stretch(self, instant: int) -> Stretch:
        """Return the stretch that holds `instant` (years 1900 to 9999)."""
        latest = self._latest
        if latest.start <= instant < latest.end:
            return latest
        year = date.fromordinal(instant // DAY + EPOCH_ORDINAL).year
        known = self._years.get(year)
        if known is None:
            if len(self._years) >= _YEARS_KEPT:
                self._years.clear()
            stretches = self._find(year)
            known = self._years[year] = ([s.start for s in stretches], stretches)
        starts, stretches = known
        self._latest = latest = stretches[bisect_right(starts, instant) - 1]
        return latest

    def offset(self, instant: int) -> int:
        """Return the seconds east of UTC that hold at `instant`."""
        delta = datetime.fromtimestamp(instant, self.info).utcoffset()
        assert delta is not None
        return delta.days * DAY + delta.seconds

    def _find(self, year: int) -> list[Stretch]:
        """Look at every day of the year, then close in on each change; no zone ever changed twice in a day."""
        first = (date(year, 1, 1).toordinal() - EPOCH_ORDINAL) * DAY
        after = first + DAY * (366 if date(year, 12, 31).timetuple().tm_yday == 366 else 365)
        changes = []
        before = offset = self.offset(first - 1)
        for day in range(first, after, DAY):
            # The second before midnight: a change at midnight itself then belongs to the day that it begins.
            now = self.offset(day + DAY - 1)
            if now != offset:
                changes.append((self._first_with(now, day - 1, day + DAY - 1), now))
                offset = now
        if not changes or changes[0][0] > first:
            changes.insert(0, (first, before))
        ends = [start for start, _ in changes[1:]] + [after]
        stretches = []
        for (start, now), end in zip(changes, ends, strict=True):
            stretches.append(Stretch(start, end, now, before))
            before = now
        return stretches

    def _first_with(self, offset: int, low: int, high: int) -> int:
        """Return the first instant in (low, high] that has `offset`; `low` has another, `high` has it."""
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == offset:
                high = middle
            else:
                low = middle
        return high


@lru_cache(maxsize=1024)
def zone_named(name: str) -> Zone:
    """Return the zone. Raises ValueError, with the likely right name if there is one, for an unknown one."""
    if name not in _NOT_ZONES and not name.startswith(_NOT_ZONE_PREFIXES):
        try:
            return Zone(name)
        except (KeyError, ValueError, OSError):  # unknown; not a key at all; the name of a folder of zones
            pass
    meant = _by_plain_name().get(name.strip().lower().replace(" ", "_"))
    hint = f"did you mean {meant}?" if meant else "write an IANA name such as Europe/Berlin, America/New_York or UTC"
    raise ValueError(f"{name[:60]!r} is no time zone: {hint}")


@lru_cache(maxsize=1)
def _by_plain_name() -> dict[str, str]:
    """Map every zone's name in lower case, and its last part, to the name."""
    names = sorted(available_timezones() - _NOT_ZONES)
    cities = {name.rpartition("/")[2].lower(): name for name in names}
    return cities | {name.lower(): name for name in names}


def instant_of(moment: datetime) -> int:
    """Return the whole second at or before an aware `moment`."""
    return int(moment.timestamp() // 1)


def moment_of(instant: int) -> datetime:
    """Return the aware UTC datetime of an instant."""
    return datetime.fromtimestamp(instant, UTC)
