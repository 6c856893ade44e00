"""Workers, queues and the leader as they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec


class Worker(msgspec.Struct, kw_only=True, frozen=True):
    """A worker process that is there, or that went in the last hour."""

    id: UUID
    name: str
    host: str
    pid: int
    queues: list[str]
    executors: list[str]
    labels: dict[str, str]
    containment: str
    slots: int
    running: int
    version: str
    state: Literal["live", "draining", "dead", "left"]
    drain_requested: bool
    registered_at: datetime
    last_seen: datetime
    ended_at: datetime | None
    end_reason: str | None


class Draining(msgspec.Struct, kw_only=True, frozen=True):
    """The worker hears of it with its next renewal, at once if Redis is there."""

    id: UUID
    drain_requested: bool


class Queue(msgspec.Struct, kw_only=True, frozen=True):
    """A queue and its live runs: `pending` wait to be queued, `queued` for a worker; counted up to 10,000 a lane."""

    name: str
    paused: bool
    pending: int
    queued: int
    updated_at: datetime | None


class QueueState(msgspec.Struct, kw_only=True, frozen=True):
    """Whether a queue is paused now."""

    name: str
    paused: bool


class Leader(msgspec.Struct, kw_only=True, frozen=True):
    """Who leads the schedulers; `silent` is how many seconds ago it last renewed its term."""

    holder: UUID | None
    epoch: int
    host: str | None
    pid: int | None
    acquired_at: datetime | None
    renewed_at: datetime | None
    silent: float | None
