"""Doing something to many runs at once: which ones, and what became of them."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from scheduler.domain.task import Body, Name

Limit = Annotated[int, Meta(ge=1, le=10_000)]


class CancelRuns(Body, kw_only=True, frozen=True):
    """Live runs, by the words of the list's filters; at least one of them is needed. `dry_run` only says which."""

    state: Literal["pending", "queued", "running"] | None = None
    queue: Name | None = None
    task_id: UUID | None = None
    limit: Limit = 1000
    dry_run: bool = False


class RetryRuns(Body, kw_only=True, frozen=True):
    """Ended runs, newest first, by the words of the list's filters. `dry_run` only says which."""

    state: Literal["failed", "cancelled", "skipped", "dead_letter"]
    queue: Name | None = None
    task_id: UUID | None = None
    limit: Limit = 1000
    dry_run: bool = False


class BulkCancelled(msgspec.Struct, kw_only=True, frozen=True):
    """`matched` are the runs that were found; `more` says that some are left for the next request.

    What was in another state when its turn came is neither `cancelled` nor `requested`; of a dry run, nothing is.
    """

    dry_run: bool
    matched: list[UUID]
    cancelled: list[UUID]
    requested: list[UUID]
    more: bool


class BulkRetried(msgspec.Struct, kw_only=True, frozen=True):
    """`matched` are the runs that were found, `retried` those that run again.

    The others' tasks have been deleted, or they were in another state when their turn came; `more` is as above.
    """

    dry_run: bool
    matched: list[UUID]
    retried: list[UUID]
    more: bool


class LogLevel(Body, kw_only=True, frozen=True):
    """How much a process says in its log."""

    level: Literal["debug", "info", "warning", "error"]
