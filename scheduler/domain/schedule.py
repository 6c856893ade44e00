"""What a schedule is to everybody who asks when: the planned fires of a task, forward, back and by number.

Instants are whole seconds since 1970 UTC; moments are aware datetimes, in answers always UTC.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from datetime import datetime
from typing import Final

from scheduler.domain.zones import Zone, instant_of, moment_of

FIRST_INSTANT = instant_of(datetime.fromisoformat("1970-01-02T00:00:00+00:00"))
LAST_INSTANT = instant_of(datetime.fromisoformat("9998-12-31T00:00:00+00:00"))
"""Nothing is planned before or after these, so that no zone's local time leaves what `datetime` can hold."""

EVENT_NAME: Final = re.compile(r"(?!stream\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""`stream` is where events are followed."""


def on_event(name: str) -> str:
    """Return the schedule of what runs when an event of this name is published, as it is stored."""
    return f"@event {name}"


class Schedule(ABC):
    """The planned fires of a task, which strictly increase."""

    def __init__(self, expression: str, zone: Zone) -> None:
        self.expression = expression
        self.zone = zone

    @abstractmethod
    def next_second(self, after: int) -> int | None:
        """Return the first fire strictly later than the instant `after`; None if there is none."""

    @abstractmethod
    def previous_second(self, at: int) -> int | None:
        """Return the newest fire at or before the instant `at`; None if there is none."""

    @abstractmethod
    def count(self, after: int, until: int) -> int:
        """Return how many fires there are in (after, until], without walking through them."""

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first fire strictly later than `moment`; None when the years of the expression have run out."""
        instant = self.next_second(instant_of(moment))
        return None if instant is None else moment_of(instant)

    def previous_at_or_before(self, moment: datetime) -> datetime | None:
        """Return the newest fire at or before `moment`; None before the first."""
        instant = self.previous_second(instant_of(moment))
        return None if instant is None else moment_of(instant)

    def between(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """Return the first `limit` fires in (after, until]."""
        end = instant_of(until)
        fires: list[datetime] = []
        instant = self.next_second(instant_of(after))
        while instant is not None and instant <= end and len(fires) < limit:
            fires.append(moment_of(instant))
            instant = self.next_second(instant)
        return fires

    def local(self, fire: datetime) -> datetime:
        """Return a fire as the task's own clock shows it."""
        return fire.astimezone(self.zone.info)

    def notes(self, fire: datetime) -> tuple[str, ...]:  # noqa: ARG002 - the general case has nothing to say
        """Return what daylight saving did since the fire before, or does to this one; mostly nothing."""
        return ()


class EverySchedule(Schedule):
    """`@every`: one fire each `period` seconds after `anchor`, the first a period after it."""

    def __init__(self, expression: str, zone: Zone, period: int, anchor: int) -> None:
        super().__init__(expression, zone)
        self.period = period
        self.anchor = anchor

    def next_second(self, after: int) -> int | None:
        """See `Schedule`."""
        if after >= LAST_INSTANT:
            return None
        return self.anchor + max((after - self.anchor) // self.period + 1, 1) * self.period

    def previous_second(self, at: int) -> int | None:
        """See `Schedule`."""
        periods = (at - self.anchor) // self.period
        return self.anchor + periods * self.period if periods >= 1 else None

    def count(self, after: int, until: int) -> int:
        """See `Schedule`."""
        first, last = (max((instant - self.anchor) // self.period, 0) for instant in (after, until))
        return max(last - first, 0)


class EventSchedule(Schedule):
    """`@event`: no time is planned; a run is made whenever somebody publishes an event of this name."""

    def next_second(self, after: int) -> int | None:  # noqa: ARG002 - there is none
        """See `Schedule`."""
        return None

    def previous_second(self, at: int) -> int | None:  # noqa: ARG002 - there is none
        """See `Schedule`."""
        return None

    def count(self, after: int, until: int) -> int:  # noqa: ARG002 - there are none
        """See `Schedule`."""
        return 0
