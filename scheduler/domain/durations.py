"""Durations as people write them: seconds as a number, or `"90s"`, `"5m"`, `"1h"`, `"1d"`, `"1h30m"`."""

from __future__ import annotations

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")

LONGEST = 10 * 366 * 86400.0
"""Ten years, in seconds: longer is a mistake, and would overflow timestamps downstream."""


def parse_duration(value: float | str) -> float:
    """Return seconds. Raises ValueError, saying what would be right, for anything else."""
    if isinstance(value, str):
        text = value.strip()
        if not _WHOLE.fullmatch(text):
            raise ValueError(f'{value!r} is no duration: write seconds as a number, or "90s", "5m", "1h", "1d"')
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        seconds = float(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError("a duration is zero or more seconds")
    if seconds > LONGEST:
        raise ValueError("a duration is ten years at most")
    return seconds


def seconds_of(duration: float | str) -> float:
    """Return the seconds of a duration that was found right when it came in."""
    return parse_duration(duration) if isinstance(duration, str) else float(duration)
