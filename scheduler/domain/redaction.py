"""Taking secrets out of what a command prints, wherever the pieces are cut in which it is read.

What could be the beginning of a secret is held back until it is known to be none, at most the length of the longest.
Only the value itself is found, and each of its longer lines by itself: who may define a command can print a secret in
disguise (reversed, in base64), so this guards against accidents, not against intent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

MASK: Final = b"***"
_SHORTEST_LINE: Final = 8


def needles_of(values: Iterable[str]) -> list[bytes]:
    """Return what to look for: each value, without blanks around it too, and its lines if there are several."""
    found: set[bytes] = set()
    for value in values:
        found |= {value.encode(), value.strip().encode()}
        lines = value.splitlines()
        if len(lines) > 1:
            found |= {line.strip().encode() for line in lines if len(line.strip()) >= _SHORTEST_LINE}
    return sorted((needle for needle in found if needle), key=len, reverse=True)


class Redactor:
    """Redacts one stream. What it has not returned yet comes with `rest`."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        """`needles`: longest first, as `needles_of` returns them."""
        self._needles = needles
        self._pattern = re.compile(b"|".join(map(re.escape, needles)))
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be told to hold no secret, of what was fed so far."""
        text = self._held + data
        start = self._open_end(text)
        # A secret that has begun to show at the end may still be complete before: only what is replaced whole goes out.
        parts, last = [], 0
        for match in self._pattern.finditer(text):
            if match.start() >= start:
                break
            parts += [text[last : match.start()], MASK]
            last = match.end()
            start = max(start, last)
        self._held = text[start:]
        parts.append(text[last:start])
        return b"".join(parts)

    def rest(self) -> bytes:
        """Return what was held back, once nothing more comes."""
        held, self._held = self._held, b""
        return self._pattern.sub(MASK, held)

    def _open_end(self, text: bytes) -> int:
        """Return where the longest stretch at the end begins that a secret could go on with."""
        earliest = len(text)
        for needle in self._needles:
            position = text.find(needle[:1], max(0, len(text) - len(needle) + 1))
            while 0 <= position < earliest:
                if needle.startswith(text[position:]):
                    earliest = position
                    break
                position = text.find(needle[:1], position + 1)
        return earliest


def redacted(value: Any, needles: Sequence[bytes]) -> Any:
    """Return a JSON value with every secret taken out of its texts, keys included, and numbers that hold one masked."""
    pattern = re.compile("|".join(re.escape(needle.decode()) for needle in needles))
    mask = MASK.decode()

    def clean(item: Any) -> Any:
        if isinstance(item, str):
            return pattern.sub(mask, item)
        if isinstance(item, dict):
            return {clean(key): clean(part) for key, part in item.items()}
        if isinstance(item, list):
            return [clean(part) for part in item]
        if isinstance(item, int | float) and not isinstance(item, bool):
            return mask if pattern.search(f"{Decimal(repr(item)):f}") else item  # in the digits that PostgreSQL keeps
        return item

    return clean(value)
