"""Retain: partitions are made before they are needed, and dropped when their time is over."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from scheduler.control.leading import Leading
from scheduler.store.history import MORE, SOON, TOO_LONG, History, Obstacle
from scheduler.telemetry import get_logger

HISTORY: Final = "scheduler.history"
"""The part of health that says whether the history is in order."""

_EVERY: Final = 600.0  # seconds
_SOON: Final = 5.0  # seconds, when traffic was in the way or more is left to delete
_LATER: Final = 3600.0  # seconds until a week is tried again that took too long, while everybody waited

_log = get_logger("retention")


class Keeper:
    """The housekeeping loop of one term."""

    def __init__(self, leading: Leading, history: History) -> None:
        self._epoch = leading.epoch
        self._settings = leading.settings
        self._health = leading.health
        self._clock = leading.clock
        self._history = history
        self._later: dict[datetime, float] = {}

    async def step(self) -> float:
        """Make what is missing, drop what is old, say what is not in order. Raises TermLost, StoreUnavailable."""
        missing = await self._create_ahead()
        kept = await self._history.drop_behind(self._epoch, self._settings.retention)
        left = await self._history.forget(
            self._epoch,
            retention=self._settings.retention,
            dead_letters=self._settings.dead_letters,
            undecided=self._settings.undecided,
        )
        uncovered = await self._history.uncovered()
        complaints = [f"rows outside of any week in {name}" for name in uncovered]
        complaints += [_complaint(week) for week in missing]
        complaints += [
            f"cannot {statement.replace('_', ' ')}: {reason}" for statement, reason in left.items() if reason != MORE
        ]
        notes = [f"{week.week:%Y-%m-%d} kept for {week.reason}" for week in kept]
        self._health.report(HISTORY, not complaints, "; ".join(complaints + notes))
        if complaints:
            _log.error("history is not in order", complaints=complaints)
        reasons = (*left.values(), *(week.reason for week in (*missing, *kept)))
        return _SOON if any(reason in SOON for reason in reasons) else _EVERY

    async def _create_ahead(self) -> list[Obstacle]:
        now = self._clock.monotonic()
        self._later = {week: until for week, until in self._later.items() if now < until}
        missing = await self._history.create_ahead(self._epoch, self._settings.weeks_ahead, later=self._later)
        for week in missing:
            if week.reason == TOO_LONG:
                self._later.setdefault(week.week, now + _LATER)
        return missing


def _complaint(week: Obstacle) -> str:
    complaint = f"no partitions yet for {week.week:%Y-%m-%d}: {week.reason}"
    if week.reason != TOO_LONG:
        return complaint
    remedy = f"SELECT dts_create_week('{week.week:%Y-%m-%d} 00:00Z')"
    return f"{complaint}; to be run by hand, without a timeout, when work may stand still: {remedy}"
