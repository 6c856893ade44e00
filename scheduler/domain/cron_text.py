"""The words of a cron expression: what may stand in each field, and a precise complaint for what may not.

croniter expands lists, ranges, steps, names and `H`. It also lets mistakes through, so every part is checked here
before croniter sees it: `5-5` (it reads the whole field), `50-10` (wraps, and loses count of the step), `*/90`
(silently `0`), `R` (another value at each parse), `15W` (dropped by `expand`), `H` as day of month (may be the 31st).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


class Kind(NamedTuple):
    """A field: its title, its bounds, names for its numbers from `low` on, and whether a range may wrap round."""

    title: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    cyclic: bool = False


SECOND = Kind("second", 0, 59)
MINUTE = Kind("minute", 0, 59)
HOUR = Kind("hour", 0, 23)
DAY = Kind("day of month", 1, 31)
MONTH = Kind("month", 1, 12, _MONTHS, cyclic=True)
WEEKDAY = Kind("day of week", 0, 7, _WEEKDAYS, cyclic=True)
YEAR = Kind("year", 1970, 2099)

_FIVE = (MINUTE, HOUR, DAY, MONTH, WEEKDAY)
LAYOUTS = {5: _FIVE, 6: (SECOND, *_FIVE), 7: (SECOND, *_FIVE, YEAR)}

_HASH = re.compile(r"H(?:\((?P<low>[0-9]+)-(?P<high>[0-9]+)\))?(?:/(?P<step>[0-9]+))?")
_RANGE = re.compile(r"(?P<low>\*|[0-9]+|[A-Z]+)(?:-(?P<high>[0-9]+|[A-Z]+))?(?:/(?P<step>[0-9]+))?")
_NTH = re.compile(r"(?P<day>[0-9]+|[A-Z]+)#(?P<nth>[0-9]+)")
_LAST_WEEKDAY = re.compile(r"L(?P<after>[0-9]|[A-Z]{3})|(?P<before>[0-9]|[A-Z]{3})L")


def checked_field(kind: Kind, text: str) -> str:
    """Return the field (in upper case) as croniter should read it. Raises ValueError."""
    if text == "?":
        if kind in (DAY, WEEKDAY):
            return "?"
        raise ValueError(f"{kind.title}: '?' stands only for day of month or day of week: write '*'")
    parts = [_checked_part(kind, part) for part in text.split(",")]
    ordinal = sum("#" in part or part[0] == "L" for part in parts) if kind is WEEKDAY else 0
    if 0 < ordinal < len(parts):
        raise ValueError(f"{kind.title}: {text!r} mixes plain weekdays with '#' or 'L': write two tasks")
    return ",".join(parts)


def _checked_part(kind: Kind, text: str) -> str:
    if text == "L" and kind is DAY:
        return text
    if text.startswith("H") and (match := _HASH.fullmatch(text)):
        return _checked_hash(kind, text, match)
    if kind is WEEKDAY and (match := _NTH.fullmatch(text)):
        day, nth = _value(kind, match["day"]), int(match["nth"])
        if not 1 <= nth <= 5:
            raise ValueError(f"{kind.title}: {text!r} asks for weekday number {nth} of a month: there are 1 to 5")
        return f"{day}#{nth}"
    if kind is WEEKDAY and (match := _LAST_WEEKDAY.fullmatch(text)):
        return f"L{_value(kind, match['after'] or match['before']) % 7}"
    if match := _RANGE.fullmatch(text):
        return _checked_range(kind, text, match)
    raise ValueError(_why_not(kind, text))


def _checked_hash(kind: Kind, text: str, match: re.Match[str]) -> str:
    if kind is YEAR:
        raise ValueError("year: 'H' would pick one year for good: write the years, or '*'")
    # The 29th to the 31st are missing from some months, and day of week 7 is Sunday a second time.
    highest = 28 if kind is DAY else 6 if kind is WEEKDAY else kind.high
    low, high = (int(match["low"]), int(match["high"])) if match["low"] else (kind.low, highest)
    if low < kind.low or high > kind.high or low >= high:
        raise ValueError(f"{kind.title}: {text!r} needs a range that rises within {kind.low} to {kind.high}")
    return f"H({low}-{high})" + _checked_step(kind, text, match["step"], high - low + 1)


def _checked_range(kind: Kind, text: str, match: re.Match[str]) -> str:
    step = match["step"]
    if match["low"] == "*":
        if match["high"]:
            raise ValueError(f"{kind.title}: {text!r} begins with '*': a range has two numbers, as in 1-5")
        return "*" + _checked_step(kind, text, step, kind.high - kind.low + 1)
    low = _value(kind, match["low"])
    if match["high"] is None:
        return str(low) + _checked_step(kind, text, step, kind.high - kind.low + 1)
    high = _value(kind, match["high"])
    if low > high and not kind.cyclic:
        raise ValueError(
            f"{kind.title}: {text!r} runs backwards: write {low}-{kind.high},{kind.low}-{high} if it is to wrap round"
        )
    suffix = _checked_step(kind, text, step, kind.high - kind.low + 1)
    if low > high:  # croniter loses its step where such a range wraps round
        size = 12 if kind is MONTH else 7
        rest = range(0, high + size - low + 1, int(step or 1))
        return ",".join(str((low - kind.low + n) % size + kind.low) for n in rest)
    return str(low) if low == high else f"{low}-{high}{suffix}"


def _checked_step(kind: Kind, text: str, step: str | None, most: int) -> str:
    if step is None:
        return ""
    if int(step) == 0:
        raise ValueError(f"{kind.title}: {text!r} has a step of 0: a step is 1 or more")
    if int(step) > most:
        hint = {"second": "s", "minute": "m", "hour": "h"}.get(kind.title)
        better = f": for a longer period write @every {int(step)}{hint}" if hint else ""
        raise ValueError(f"{kind.title}: the step of {text!r} is longer than the whole field ({most}){better}")
    return f"/{int(step)}"


def _value(kind: Kind, text: str) -> int:
    if not text.isdigit():
        if text not in kind.names:
            raise ValueError(_why_not(kind, text))
        return kind.low + kind.names.index(text)
    if not kind.low <= int(text) <= kind.high:
        raise ValueError(f"{kind.title}: {int(text)} is out of range: {kind.low} to {kind.high}")
    return int(text)


def _why_not(kind: Kind, text: str) -> str:
    """Say what is wrong with a part that has no known form."""
    if re.fullmatch(r"R(\(.*\))?(/.*)?", text):
        return f"{kind.title}: 'R' would change at every start of the scheduler: write 'H', which is hashed and stays"
    if kind is DAY and "W" in text:
        return f"{kind.title}: 'W' (nearest weekday) is not supported: name the days or the weekdays"
    if kind is DAY and text.startswith("L"):
        return f"{kind.title}: 'L' is the last day of the month and stands alone, without a number or a range"
    if kind is WEEKDAY and text == "L":
        return f"{kind.title}: 'L' needs a weekday: L5 or FRIL is the last Friday of the month"
    names = f", or {kind.names[0]} to {kind.names[-1]}" if kind.names else ""
    return f"{kind.title}: {text!r} is not understood: write {kind.low} to {kind.high}{names}, with '*' ',' '-' '/'"
