"""Operations on calendars, without I/O."""

from __future__ import annotations

import msgspec

from scheduler.client.exchange import Operation, ask, build, decoded, path_of
from scheduler.client.pages import Listing
from scheduler.domain.calendars import Calendar
from scheduler.wire.calendars import StoredCalendar


def calendars(*, page: int | None = None) -> Listing[StoredCalendar]:
    """List calendars by name."""
    return Listing("/api/calendars", StoredCalendar, {"limit": page})


def calendar(name: str) -> Operation[StoredCalendar]:
    """Read one calendar."""
    return decoded((yield from ask(build("GET", path_of("api", "calendars", name)))), StoredCalendar)


def put_calendar(name: str, contents: Calendar, *, version: int | None = None) -> Operation[StoredCalendar]:
    """Store what a calendar holds; without `version` it is created if there is none."""
    request = build("PUT", path_of("api", "calendars", name), body=msgspec.json.encode(contents), version=version)
    return decoded((yield from ask(request)), StoredCalendar)


def delete_calendar(name: str) -> Operation[None]:
    """Delete a calendar. Raises Conflict if recurring tasks keep to it."""
    yield from ask(build("DELETE", path_of("api", "calendars", name)))
