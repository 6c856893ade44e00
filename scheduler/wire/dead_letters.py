"""Dead letters, and what was decided about them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from scheduler.domain.task import Body, Name


class DeadLetter(msgspec.Struct, kw_only=True, frozen=True):
    """A run that used up its budget, with what its last attempt left, waiting for somebody to decide."""

    id: UUID
    run_id: UUID
    task_id: UUID
    namespace: str
    task_name: str
    queue: str
    reason: str
    attempt: int
    failures: int
    losses: int
    exit_code: int | None
    output_tail: str | None
    state: Literal["open", "replayed", "discarded"]
    created_at: datetime


class Selection(Body, kw_only=True, frozen=True):
    """Open dead letters by id, or the newest `limit` that match."""

    ids: list[UUID] | None = None
    queue: Name | None = None
    task_id: UUID | None = None
    reason: Name | None = None
    limit: int = 1000


class Replay(Selection, kw_only=True, frozen=True):
    """`edits` is a merge patch for the definitions of the tasks that are replayed.

    `canary` runs go first, the first ones chosen; the others wait until all of these have completed. Should one of them
    end otherwise, the others are skipped and their letters open again.
    """

    edits: dict[str, Any] | None = None
    canary: int | None = None


class Decided(msgspec.Struct, kw_only=True, frozen=True):
    """What became of one dead letter: `waiting` is replayed behind canaries; where it was refused, `code` says why."""

    id: UUID
    run_id: UUID | None
    result: Literal["replayed", "waiting", "discarded", "refused"]
    code: str | None = None
