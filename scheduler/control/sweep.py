"""Where a look for due runs begins: at the oldest, or, while that is dear, where the looks before it have been.

The index over waiting runs keeps the entries of those that have gone on until no transaction can see them any more. If
somebody holds an old snapshot, a look from the beginning passes all of them, a million in an hour. Then only a
twentieth of the time goes into such looks. Those in between pass over what was looked at before, and so over runs that
began to wait only afterwards but with an early `run_at` (a dependent that was freed, a task that was resumed): these
are found by the next look from the beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from scheduler.domain.run import Queued
from scheduler.pace import rest_after
from scheduler.store.dispatch import Position

Place = tuple[str, int]

BEGINNING: Final[Position] = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
_CHEAP: Final = 0.005
_CHEAP_RUN: Final = 0.0002
"""Seconds that a look may take, and for each run that it moves, before it counts as dear."""
_SLACK: Final = timedelta(seconds=10)
"""Runs may be committed a little after their `run_at`, and clocks differ: so much is always looked at again."""


class Sweep:
    """The looks of one term over all (lane, priority) places. Times are monotonic seconds, but for `run_at`."""

    def __init__(self) -> None:
        self._passed: dict[Place, Position] = {}
        self._whole_again = 0.0
        self._whole = True

    def begin(self, now: float) -> None:
        """Decide whether the look that begins now goes over everything."""
        self._whole = now >= self._whole_again
        if self._whole:
            self._passed.clear()

    def after(self, place: Place) -> Position:
        """Return what is to be passed over."""
        return self._passed.get(place, BEGINNING)

    def end(
        self, now: float, seconds: float, at: datetime, wanted: Mapping[Place, int], moved: Collection[Queued]
    ) -> None:
        """Note what a look brought: of at most `wanted` runs for each place, those `moved`, in so many `seconds`."""
        if self._whole:
            if seconds <= _CHEAP + _CHEAP_RUN * len(moved):
                return
            self._whole_again = now + rest_after(seconds, 0.0)
        last: dict[Place, Position] = {}
        count: dict[Place, int] = {}
        for run in moved:
            place = run.lane, run.priority
            last[place] = max(last.get(place, BEGINNING), (run.run_at, run.run_id))
            count[place] = count.get(place, 0) + 1
        edge = at - _SLACK, UUID(int=0)
        for place, places in wanted.items():
            if places > 0:
                found_all = count.get(place, 0) < places
                seen = edge if found_all else min(last[place], edge)
                self._passed[place] = max(self.after(place), seen)
