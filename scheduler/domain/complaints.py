"""Collects all that is wrong with a body, each complaint at its place, before anything is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

from scheduler.domain.durations import parse_duration
from scheduler.domain.errors import FieldError, InvalidInput

MOST = 100
"""Complaints about one body; with so many, nobody reads the rest."""


class Complaints:
    """Complaints about one body. A place is an RFC 6901 pointer without its first slash: `retry/max_interval`."""

    __slots__ = ("_found", "_prefix")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._found: list[FieldError] = []

    def add(self, place: str, detail: str) -> None:
        """Complain. Raises InvalidInput at once when there are too many."""
        self._found.append(FieldError(f"{self._prefix}/{place}", detail))
        if len(self._found) >= MOST:
            self.raise_any()

    def text(self, place: str, value: str, check: Callable[[str], str | None]) -> None:
        """Complain if `check` does (see `scheduler.domain.text`), quoting the beginning of the value."""
        complaint = check(value)
        if complaint is not None:
            self.add(place, f"{quoted(value)} {complaint}")

    def seconds(self, place: str, value: float | str, *, positive: bool = False) -> float:
        """Return a duration in seconds, NaN with a complaint if it is none; `positive` complains about zero too."""
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.add(place, str(error))
            return math.nan
        if positive and not seconds:
            self.add(place, "is zero: write a longer duration, or leave it out")
        return seconds

    def raise_any(self) -> None:
        """Raise InvalidInput with every complaint, if there is one."""
        if self._found:
            raise InvalidInput(self._found)


def step(key: str | int) -> str:
    """Return one step of a pointer, with `~` and `/` escaped."""
    return str(key).replace("~", "~0").replace("/", "~1")


def quoted(text: str) -> str:
    """Return a text as it may be shown in a complaint: quoted, escaped, 60 characters at most."""
    return repr(text) if len(text) <= 60 else repr(text[:59]) + "…"
