"""Sizes as people write them: bytes as a number, or `"512K"`, `"64M"`, `"1.5G"`, `"2T"`, in powers of 1024."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_WHOLE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(?:iB)?")

LARGEST = 1 << 60


def parse_size(value: int | str) -> int:
    """Return bytes (1 to an exbibyte). Raises ValueError, saying what would be right, for anything else."""
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value.strip())
        if match is None or len(value) > 40:
            raise ValueError(f'{value[:40]!r} is no size: write bytes as a number, or "512K", "64M", "1.5G"')
        value = int(float(match[1]) * _UNITS[match[2]])
    if not 1 <= value <= LARGEST:
        raise ValueError("a size is at least one byte and at most an exbibyte")
    return value
