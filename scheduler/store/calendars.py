"""Calendars as they are stored, each under a name of its namespace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from scheduler.domain.calendars import Calendar, decode_calendar, encode_calendar
from scheduler.store.database import Database, Executor
from scheduler.store.pages import Page
from scheduler.wire.calendars import StoredCalendar


class Calendars:
    """Reads on any connection; writes inside the caller's transaction where they take an `executor`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, name: str) -> StoredCalendar | None:
        """Return one calendar."""
        row = await self._database.fetchrow("get_calendar", namespace, name)
        return None if row is None else _stored(row)

    async def page(self, namespace: str, after: str | None, limit: int) -> Page[StoredCalendar]:
        """Return calendars by name."""
        rows = await self._database.fetch("list_calendars", namespace, after or "", limit + 1)
        items = [_stored(row) for row in rows[:limit]]
        return Page(items, items[-1].name if len(rows) > limit else None)

    async def create(self, namespace: str, name: str, calendar: Calendar, actor: str) -> bool:
        """Store a new calendar; False if the name is taken."""
        return (
            await self._database.fetchval("insert_calendar", namespace, name, encode_calendar(calendar), actor)
        ) is not None

    async def put(
        self, executor: Executor, namespace: str, name: str, calendar: Calendar, actor: str, version: int | None
    ) -> int | None:
        """Store what the calendar holds from now on, whether it is there or not; None if it is not at `version`.

        Returns the version that it has now.
        """
        spec = encode_calendar(calendar)
        stored: int | None = await executor.fetchval("replace_calendar", namespace, name, spec, actor, version)
        if stored is None and version is None:
            stored = await executor.fetchval("insert_calendar", namespace, name, spec, actor)
        return stored

    async def delete(self, executor: Executor, namespace: str, name: str, version: int | None) -> int | None:
        """Delete a calendar; return its version, None if there is none or it is not at `version`."""
        deleted: int | None = await executor.fetchval("delete_calendar", namespace, name, version)
        return deleted

    async def users(self, executor: Executor, namespace: str, name: str) -> list[str]:
        """Return names of recurring tasks (at most ten) that keep to a calendar."""
        return [row["name"] for row in await executor.fetch("calendar_users", namespace, name)]

    async def missing(self, namespace: str, names: Iterable[str]) -> set[str]:
        """Return those of the names that no calendar bears."""
        wanted = set(names)
        return wanted - (await self.named([(namespace, name) for name in wanted])).keys() if wanted else set()

    async def named(self, wanted: Sequence[tuple[str, str]]) -> dict[str, Calendar]:
        """Return the calendars of one namespace by name; those that do not exist are left out."""
        return {name: calendar for (_, name), calendar in (await self.find(wanted)).items()}

    async def find(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Calendar]:
        """Return calendars by (namespace, name); those that do not exist are left out."""
        if not wanted:
            return {}
        rows = await self._database.fetch("find_calendars", [w[0] for w in wanted], [w[1] for w in wanted])
        return {(row["namespace"], row["name"]): decode_calendar(row["spec"]) for row in rows}


def _stored(row: Any) -> StoredCalendar:
    calendar = decode_calendar(row["spec"])
    return StoredCalendar(
        name=row["name"],
        timezone=calendar.timezone,
        dates=calendar.dates,
        ranges=calendar.ranges,
        weekly=calendar.weekly,
        version=row["version"],
        created_at=row["created_at"],
        created_by=row["created_by"],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
    )
