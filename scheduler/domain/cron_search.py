"""The next, the previous and the number of local times that match a cron expression, by arithmetic on bit masks.

Times are wall seconds (see `scheduler.domain.zones`): there is no daylight saving here.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import date

from scheduler.domain.cron_fields import CronFields, days_of_month
from scheduler.domain.zones import DAY, EPOCH_ORDINAL

FIRST_YEAR = 1970
LAST_YEAR = 9998
_HORIZON = 48
"""Years to look ahead or back: a leap day on a given weekday comes round in 40 at the latest (across 2100)."""


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


class WallClock:
    """The local times that match one set of fields."""

    __slots__ = ("_days", "_first", "_hours", "_last", "_minutes", "_months", "_seconds", "_years", "per_day")

    def __init__(self, fields: CronFields) -> None:
        self._seconds = fields.seconds
        self._minutes = fields.minutes
        self._hours = fields.hours
        self._months = fields.months
        self._days = fields.days
        self._years = fields.years
        self._first = _lowest(fields.hours) * 3600 + _lowest(fields.minutes) * 60 + _lowest(fields.seconds)
        self._last = (
            (fields.hours.bit_length() - 1) * 3600
            + (fields.minutes.bit_length() - 1) * 60
            + fields.seconds.bit_length()
            - 1
        )
        self.per_day = fields.hours.bit_count() * fields.minutes.bit_count() * fields.seconds.bit_count()

    def next(self, wall: int) -> int | None:
        """Return the first matching time at or after `wall`; None if there is none."""
        day, second = divmod(wall, DAY)
        today = date.fromordinal(day + EPOCH_ORDINAL)
        days = self._month(today.year, today.month) >> today.day
        if days & 1:
            time = self._next_time(second)
            if time >= 0:
                return day * DAY + time
        days >>= 1
        if days:
            return (day + 1 + _lowest(days)) * DAY + self._first
        return self._in_later_month(today.year, today.month)

    def previous(self, wall: int) -> int | None:
        """Return the last matching time at or before `wall`; None if there is none."""
        day, second = divmod(wall, DAY)
        today = date.fromordinal(day + EPOCH_ORDINAL)
        days = self._month(today.year, today.month)
        if days >> today.day & 1:
            time = self._previous_time(second)
            if time >= 0:
                return day * DAY + time
        days &= (1 << today.day) - 1
        if days:
            return (day - today.day + days.bit_length() - 1) * DAY + self._last
        return self._in_earlier_month(today.year, today.month)

    def count(self, start: int, end: int) -> int:
        """Return how many matching times there are from `start` up to `end` (excluded), in O(months)."""
        if end <= start:
            return 0
        first_day, first_second = divmod(start, DAY)
        last_day, last_second = divmod(end, DAY)
        total = self._count_days(first_day, last_day) * self.per_day
        if self._count_days(first_day, first_day + 1):
            total -= self._count_times(first_second)
        if last_second and self._count_days(last_day, last_day + 1):
            total += self._count_times(last_second)
        return total

    def _month(self, year: int, month: int) -> int:
        if not self._months >> month & 1 or (self._years is not None and year not in self._years):
            return 0
        return days_of_month(self._days, year, month)

    def _next_time(self, second: int) -> int:
        """Return the first matching second of the day at or after `second`, or -1."""
        hour, second = divmod(second, 3600)
        hours = self._hours >> hour
        if hours & 1:
            minute, second = divmod(second, 60)
            minutes = self._minutes >> minute
            if minutes & 1:
                seconds = self._seconds >> second
                if seconds:
                    return hour * 3600 + minute * 60 + second + _lowest(seconds)
            minutes >>= 1
            if minutes:
                return hour * 3600 + (minute + 1 + _lowest(minutes)) * 60 + _lowest(self._seconds)
        hours >>= 1
        if hours:
            return (hour + 1 + _lowest(hours)) * 3600 + self._first % 3600
        return -1

    def _previous_time(self, second: int) -> int:
        """Return the last matching second of the day at or before `second`, or -1."""
        hour, second = divmod(second, 3600)
        if self._hours >> hour & 1:
            minute, second = divmod(second, 60)
            if self._minutes >> minute & 1:
                seconds = self._seconds & (2 << second) - 1
                if seconds:
                    return hour * 3600 + minute * 60 + seconds.bit_length() - 1
            minutes = self._minutes & (1 << minute) - 1
            if minutes:
                return hour * 3600 + (minutes.bit_length() - 1) * 60 + self._last % 60
        hours = self._hours & (1 << hour) - 1
        if hours:
            return (hours.bit_length() - 1) * 3600 + self._last % 3600
        return -1

    def _in_later_month(self, year: int, month: int) -> int | None:
        for later in range(year, min(self._last_year(year), LAST_YEAR) + 1):
            if self._years is None or later in self._years:
                months = self._months >> month + 1 << month + 1 if later == year else self._months
                while months:
                    month = _lowest(months)
                    days = days_of_month(self._days, later, month)
                    if days:
                        ordinal = date(later, month, _lowest(days)).toordinal()
                        return (ordinal - EPOCH_ORDINAL) * DAY + self._first
                    months &= months - 1
        return None

    def _in_earlier_month(self, year: int, month: int) -> int | None:
        for earlier in range(year, max(self._first_year(year), FIRST_YEAR) - 1, -1):
            if self._years is None or earlier in self._years:
                months = self._months & (1 << month) - 1 if earlier == year else self._months
                while months:
                    month = months.bit_length() - 1
                    days = days_of_month(self._days, earlier, month)
                    if days:
                        ordinal = date(earlier, month, days.bit_length() - 1).toordinal()
                        return (ordinal - EPOCH_ORDINAL) * DAY + self._last
                    months ^= 1 << month
        return None

    def _last_year(self, year: int) -> int:
        return year + _HORIZON if self._years is None else max(self._years)

    def _first_year(self, year: int) -> int:
        return year - _HORIZON if self._years is None else min(self._years)

    def _count_times(self, second: int) -> int:
        """Return how many matching seconds of a day come before `second`."""
        hour, second = divmod(second, 3600)
        minute, second = divmod(second, 60)
        per_minute = self._seconds.bit_count()
        per_hour = self._minutes.bit_count() * per_minute
        total = (self._hours & (1 << hour) - 1).bit_count() * per_hour
        if self._hours >> hour & 1:
            total += (self._minutes & (1 << minute) - 1).bit_count() * per_minute
            if self._minutes >> minute & 1:
                total += (self._seconds & (1 << second) - 1).bit_count()
        return total

    def _count_days(self, start: int, end: int) -> int:
        """Return how many matching days there are from day `start` up to day `end` (excluded)."""
        total = 0
        while start < end:
            first = date.fromordinal(start + EPOCH_ORDINAL)
            length = min(monthrange(first.year, first.month)[1] - first.day + 1, end - start)
            total += (self._month(first.year, first.month) >> first.day & (1 << length) - 1).bit_count()
            start += length
        return total
