"""Backfills: runs for planned fires that have passed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from scheduler.domain.backfill import MOST, BackfillOverlap
from scheduler.domain.task import Body, Moment


class BackfillRange(Body, kw_only=True, frozen=True):
    """The range of planned fires, both ends included; at most `cap` are looked at, oldest first.

    Without `overlap` the runs go one by one (side by side only if the task allows every overlap).
    """

    start: Moment = msgspec.field(name="from")
    end: Moment = msgspec.field(name="to")
    cap: Annotated[int, Meta(ge=1, le=MOST)] = 100
    overlap: BackfillOverlap | None = None
    dry_run: bool = False


class BackfillItem(msgspec.Struct, kw_only=True, frozen=True):
    """One fire: it makes a run (`run_id`; null on a dry run), has one already, or overlap refuses it (`reason`)."""

    scheduled_for: datetime
    result: Literal["run", "exists", "skipped"]
    reason: str | None
    run_id: UUID | None


class Backfilled(msgspec.Struct, kw_only=True, frozen=True):
    """`next_from`: where to go on, if the cap was reached. Fires after `decided_until` are left to the schedule."""

    items: list[BackfillItem]
    next_from: datetime | None
    decided_until: datetime
