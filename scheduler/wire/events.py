"""What the stream of events tells: an object that has changed, as it is now."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

Kind = Literal["run", "task", "worker", "leader"]


class Change(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One object as it was found. `at` is when it was last seen to change; `version` only grows.

    `state` is a run's state; `active`, `paused` or `deleted` of a recurring task; `live`, `draining`, `left` or `dead`
    of a worker; `leading` or `vacant` of the leader, whose `version` is its epoch.
    """

    kind: Kind
    id: UUID | None
    state: str
    at: datetime | None
    namespace: str | None = None
    name: str | None = None
    task_id: UUID | None = None
    queue: str | None = None
    reason: str | None = None
    attempt: int | None = None
    version: int | None = None


class Gap(msgspec.Struct, kw_only=True, frozen=True):
    """Changes may be missing: read what you need again, then go on with the stream."""

    reason: Literal["too_old", "too_many", "too_slow"]


class BegunRun(msgspec.Struct, kw_only=True, frozen=True):
    """A run that began because of an event."""

    task_id: UUID
    run_id: UUID


class PublishedEvent(msgspec.Struct, kw_only=True, frozen=True):
    """What somebody has said has happened. `payload` is any JSON value."""

    id: UUID
    name: str
    payload: Any
    published_at: datetime
    published_by: str
    runs: list[BegunRun]
