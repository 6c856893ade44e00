"""What the leader does to waiting runs: promote those that are due and unblocked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from scheduler.domain.run import Queued
from scheduler.store.database import Database
from scheduler.store.execution import queued_from
from scheduler.store.gates import Gates

Position = tuple[datetime, UUID]
"""A run's place among those of its lane and priority: `run_at` and id."""


class Lane(msgspec.Struct, frozen=True):
    """A lane as the leader and the workers see it; `requires` are labels that a worker must have."""

    lane: str
    namespace: str
    queue: str
    executor: str
    requires: dict[str, str]
    paused: bool


class Dispatch:
    """Promotion and what it needs to know."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.gates = Gates(database)

    async def lanes(self) -> list[Lane]:
        """Return every lane that work was ever put in."""
        return [
            Lane(
                row["lane"],
                row["namespace"],
                row["queue"],
                row["executor"],
                msgspec.json.decode(row["requires"], type=dict[str, str]),
                row["paused"],
            )
            for row in await self._database.fetch("active_lanes")
        ]

    async def promote(
        self, epoch: int, rooms: Mapping[tuple[str, int], int], after: Callable[[tuple[str, int]], Position]
    ) -> list[Queued]:
        """Queue what is due: at most `rooms[lane, priority]` runs of each, behind `after(place)`, its (run_at, id).

        A deposed leader moves nothing.
        """
        places = [place for place, room in rooms.items() if room > 0]
        if not places:
            return []
        lanes, priorities, moments, ids = _columns(places, after)
        room = [rooms[place] for place in places]
        rows = await self._database.fetch("promote", epoch, lanes, priorities, room, moments, ids)
        return [queued_from(row) for row in rows]

    async def next_due(
        self, places: Sequence[tuple[str, int]], after: Callable[[tuple[str, int]], Position]
    ) -> float | None:
        """Return seconds until the next run of these (lane, priority) falls due (zero or less: already), or None."""
        seconds: float | None = await self._database.fetchval("next_due", *_columns(places, after))
        return seconds

    async def queued_by_lane(self, lanes: Sequence[str], limit: int) -> dict[tuple[str, int], int]:
        """Count queued runs by (lane, priority), each no further than `limit`."""
        rows = await self._database.fetch("queued_by_lane", list(lanes), limit)
        return {(row["lane"], row["priority"]): row["queued"] for row in rows}


def _columns(
    places: Sequence[tuple[str, int]], after: Callable[[tuple[str, int]], Position]
) -> tuple[list[str], list[int], list[datetime], list[UUID]]:
    positions = [after(place) for place in places]
    return (
        [lane for lane, _ in places],
        [priority for _, priority in places],
        [moment for moment, _ in positions],
        [run_id for _, run_id in positions],
    )
