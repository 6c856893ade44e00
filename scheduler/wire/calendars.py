"""Calendars as they are shown."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from scheduler.domain.calendars import DateRange, WeeklyRule


class StoredCalendar(msgspec.Struct, kw_only=True, frozen=True):
    """A calendar. `version` goes into `If-Match`."""

    name: str
    timezone: str
    dates: list[date]
    ranges: list[DateRange]
    weekly: list[WeeklyRule]
    version: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
