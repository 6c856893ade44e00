"""A cron expression as sets of numbers.

The day rule is Vixie cron's: when both day of month and day of week are restricted, either may match; a field that
begins with `*` (so `*/2` too) or is `?` counts as unrestricted, and then both must match.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from scheduler.domain.cron_text import DAY, HOUR, LAYOUTS, MINUTE, MONTH, SECOND, WEEKDAY, YEAR, Kind, checked_field

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_HASHED = re.compile(r"(?<![A-Z])H(?![A-Z])", re.IGNORECASE)


class DayRule(NamedTuple):
    """Which days of a month match. Masks have bit n set for n; weekday 0 is Sunday.

    `nth` holds (weekday, n) for the n-th such weekday of the month, n = 0 for the last; if there are any, they replace
    `weekdays`. `both`: a day must satisfy days and weekdays; else one is enough.
    """

    days: int
    last_day: bool
    weekdays: int
    nth: tuple[tuple[int, int], ...]
    both: bool


class CronFields(NamedTuple):
    """An expanded expression. Masks have bit n set for n; `years` is None for every year."""

    seconds: int
    minutes: int
    hours: int
    months: int
    days: DayRule
    years: frozenset[int] | None


def is_hashed(expression: str) -> bool:
    """Say whether the expression depends on the hash id."""
    return _HASHED.search(expression) is not None


def parse_fields(expression: str, hash_id: str) -> CronFields:
    """Return the sets that a cron expression (or a macro, not `@every`) stands for. Raises ValueError."""
    from croniter import croniter  # noqa: PLC0415 - 60 ms and 6 MB, which a role without cron expressions saves

    parts = MACROS.get(expression, expression).upper().split()
    kinds = LAYOUTS.get(len(parts))
    if kinds is None:
        count = f"{len(parts)} fields are" if len(parts) != 1 else "1 field is"
        raise ValueError(
            f"{count} too {'few' if len(parts) < 5 else 'many'}: write 5 (minute hour day-of-month month day-of-week), "
            "6 with seconds first, or 7 with seconds first and the year last"
        )
    checked = [checked_field(kind, part) for kind, part in zip(kinds, parts, strict=True)]
    expanded, nth = croniter.expand(" ".join(checked), hash_id=hash_id.encode(), second_at_beginning=len(kinds) > 5)
    day_text, weekday_text = (checked[kinds.index(kind)] for kind in (DAY, WEEKDAY))
    fields = CronFields(
        seconds=_mask(expanded[5], SECOND) if len(kinds) > 5 else 1,
        minutes=_mask(expanded[0], MINUTE),
        hours=_mask(expanded[1], HOUR),
        months=_mask(expanded[3], MONTH),
        days=DayRule(
            days=_mask(expanded[2], DAY),
            last_day="l" in expanded[2],
            weekdays=_mask(expanded[4], WEEKDAY) & 0x7F,
            nth=tuple(sorted((day, 0 if n == "l" else n) for day, ns in nth.items() for n in ns)),
            both=day_text[0] in "*?" or weekday_text[0] in "*?",
        ),
        years=frozenset(expanded[6]) if YEAR in kinds and expanded[6] != ["*"] else None,
    )
    _refuse_impossible(fields)
    return fields


@lru_cache(maxsize=16384)
def days_of_month(rule: DayRule, year: int, month: int) -> int:
    """Return the mask of the days of that month which match."""
    first, length = monthrange(year, month)  # first: 0 is Monday
    every = (2 << length) - 2
    days = rule.days & every | (1 << length if rule.last_day else 0)
    weekdays = 0
    for weekday, n in rule.nth or [(w, None) for w in range(7) if rule.weekdays >> w & 1]:
        begin = 1 + (weekday - 1 - first) % 7
        mask = sum(1 << day for day in range(begin, length + 1, 7))
        if n is None:
            weekdays |= mask
        elif n == 0:
            weekdays |= 1 << mask.bit_length() - 1
        else:
            weekdays |= mask & 1 << begin + 7 * (n - 1)
    return days & weekdays if rule.both else days | weekdays


def _mask(values: Iterable[int | str], kind: Kind) -> int:
    if "*" in values:
        values = range(kind.low, kind.high + 1)
    return sum(1 << value for value in values if isinstance(value, int))


def _refuse_impossible(fields: CronFields) -> None:
    """Raise ValueError if no date of a century (or of the years given) matches."""
    months = [month for month in range(1, 13) if fields.months >> month & 1]
    for year in sorted(fields.years) if fields.years else range(2000, 2100):
        if any(days_of_month(fields.days, year, month) for month in months):
            return
    years = sorted(fields.years) if fields.years else [2000]
    longest = max(monthrange(year, month)[1] for year in years for month in months)
    earliest = (fields.days.days & -fields.days.days).bit_length() - 1
    if earliest > longest:
        raise ValueError(f"this date never comes: day {earliest} is wanted, but the months chosen have {longest} days")
    raise ValueError("this date never comes: no day of the months chosen is also such a weekday")
