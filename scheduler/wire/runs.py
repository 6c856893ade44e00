"""What can be asked about runs and done to them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from scheduler.domain.blockers import Blocker
from scheduler.domain.run import RunState


class Cancelled(msgspec.Struct, kw_only=True, frozen=True):
    """Runs that ended at once, and executing ones that were asked to."""

    cancelled: list[UUID]
    requested: list[UUID]


class Explanation(msgspec.Struct, kw_only=True, frozen=True):
    """Why a run is not running: every blocker that stands now."""

    run_id: UUID
    state: RunState
    blockers: list[Blocker]


class FenceCheck(msgspec.Struct, kw_only=True, frozen=True):
    """Whether a fence still holds, and which one does (null: no attempt executes)."""

    valid: bool
    current: int | None


class StoredCheckpoint(msgspec.Struct, kw_only=True, frozen=True):
    """A checkpoint was stored; `size` in bytes."""

    stored_at: datetime
    size: int
