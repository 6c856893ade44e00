"""Runs as the API reads and changes them: listing, cancelling, reviving, their fences, checkpoints and output."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from scheduler.domain.gates import gate_name
from scheduler.domain.lane import lane_for
from scheduler.domain.run import TERMINAL, Attempt, Run, RunState
from scheduler.domain.task import decode_spec
from scheduler.store.database import Database, Executor
from scheduler.store.execution import Settled, settle_onward
from scheduler.store.pages import LAST_ID, WALK, Page, page_of


class RunFilter(msgspec.Struct, kw_only=True, frozen=True):
    """Which runs to list; None stands for any."""

    task_id: UUID | None = None
    state: str | None = None
    queue: str | None = None


class Cancelled(msgspec.Struct, frozen=True):
    """What a cancel did: runs that ended at once, executing ones whose workers must be told, and their dependents."""

    done: list[UUID]
    requested: list[tuple[UUID, UUID]]  # (run, worker)
    settled: Settled


class Revivable(msgspec.Struct, frozen=True):
    """A run that somebody wants to run again."""

    run_id: UUID
    task_id: UUID
    state: RunState
    spec: bytes
    deleted: bool


class Checkpoint(msgspec.Struct, frozen=True):
    """A stored checkpoint and the fence of the attempt that wrote it."""

    data: bytes
    fence: int
    stored_at: datetime


class OutputChunk(msgspec.Struct, frozen=True):
    """A piece of what an attempt printed; `position` is its first byte's offset."""

    position: int
    stream: Literal["stdout", "stderr"]
    data: bytes

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.position + len(self.data)


class Runs:
    """Reads on any connection; writes inside the caller's transaction where they take an `executor`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, run_id: UUID) -> Run | None:
        """Return one run."""
        row = await self._database.fetchrow("get_run", run_id, namespace)
        return _run(row) if row is not None else None

    async def page(self, namespace: str, wanted: RunFilter, after: UUID | None, limit: int) -> Page[Run]:
        """Return runs, newest first."""
        extra: tuple[object, ...] = ()
        unfiltered = wanted.queue is None
        if wanted.task_id is not None:
            statement, extra = "list_runs_of_task", (wanted.task_id,)
            unfiltered = unfiltered and wanted.state is None
        elif wanted.state in TERMINAL:
            statement = "list_runs_ended"
        elif wanted.state in ("queued", "running"):
            statement = "list_runs_active"
        else:
            statement = "list_runs"
            unfiltered = unfiltered and wanted.state is None
        walk = limit + 1 if unfiltered else WALK
        rows = await self._database.fetch(
            statement, namespace, after or LAST_ID, limit + 1, walk, wanted.queue, wanted.state, *extra
        )
        return page_of(rows, limit, walk, _run)

    async def live(self, namespace: str, wanted: RunFilter, limit: int) -> list[UUID]:
        """Return up to `limit` runs that have not ended, in no order."""
        if wanted.task_id is not None:
            rows = await self._database.fetch(
                "live_runs_of_task_by_filter", namespace, wanted.queue, wanted.state, wanted.task_id, limit
            )
        else:
            rows = await self._database.fetch("live_runs_by_filter", namespace, wanted.queue, wanted.state, limit)
        return [row["id"] for row in rows]

    async def lock(self, executor: Executor, namespace: str, run_id: UUID) -> int | None:
        """Keep a run as it is until the transaction ends; return its version."""
        version: int | None = await executor.fetchval("lock_run", run_id, namespace)
        return version

    async def attempts(self, run_id: UUID) -> list[Attempt]:
        """Return every attempt in order, the executing one last."""
        return [Attempt(**dict(row)) for row in await self._database.fetch("list_attempts", run_id)]

    async def cancel(
        self,
        executor: Executor,
        namespace: str,
        run_ids: Sequence[UUID],
        *,
        reason: str = "cancelled",
        lanes_open: Sequence[str] = (),
        state: str | None = None,
    ) -> Cancelled:
        """End the waiting ones of these runs and ask for the end of the executing ones; terminal ones stay.

        With `state`, so do those that are in another one by now.
        """
        rows = await executor.fetch("cancel_runs", sorted(run_ids), namespace, list(lanes_open), reason, state)
        done = [row["run_id"] for row in rows if row["kind"] == "cancelled"]
        requested = [(row["run_id"], row["worker_id"]) for row in rows if row["kind"] == "requested"]
        moved = [row for row in rows if row["kind"] not in ("cancelled", "requested")]
        return Cancelled(done, requested, await settle_onward(executor, moved, lanes_open))

    async def revivable(self, executor: Executor, namespace: str, run_ids: Sequence[UUID]) -> dict[UUID, Revivable]:
        """Return those of the runs that exist, with the definitions that they would run under.

        These stay as they are until the transaction ends. No run of theirs may be locked in it before.
        """
        rows = await executor.fetch("revivable", list(run_ids), namespace)
        return {
            row["id"]: Revivable(row["id"], row["task_id"], row["state"], row["spec"], row["deleted_at"] is not None)
            for row in rows
        }

    async def revive(
        self,
        executor: Executor,
        namespace: str,
        revivals: Sequence[tuple[UUID, bytes]],
        actor: str,
        *,
        state: str | None = None,
    ) -> list[UUID]:
        """Let ended runs run again, with fresh budgets, under these definitions; return those that will.

        A dead letter of theirs is marked as replayed. With `state`, those that are in another one by now stay.
        """
        columns: list[tuple[object, ...]] = []
        for run_id, spec_json in sorted(revivals):
            spec = decode_spec(spec_json)
            lane = lane_for(namespace, spec)
            timeout = spec.schedule_timeout
            columns.append(
                (run_id, spec.queue, lane, spec.priority, spec.retry.max_attempts, timeout, gate_name(namespace, spec))
            )
        if not columns:
            return []
        *rest, gates = (list(column) for column in zip(*columns, strict=True))
        rows = await executor.fetch("revive", *rest, actor, gates, state)
        return [row["id"] for row in rows]

    async def fence(self, namespace: str, run_id: UUID) -> tuple[bool, int | None]:
        """Return (whether the run exists, the fence of its executing attempt)."""
        row = await self._database.fetchrow("run_fence", run_id, namespace)
        return (False, None) if row is None else (True, row["fence"])

    async def checkpoint(self, run_id: UUID) -> Checkpoint | None:
        """Return a run's checkpoint."""
        row = await self._database.fetchrow("read_checkpoint", run_id)
        return Checkpoint(bytes(row["data"]), row["fence"], row["stored_at"]) if row is not None else None

    async def put_checkpoint(self, run_id: UUID, data: bytes, fence: int | None) -> datetime | None:
        """Store a checkpoint (≤ 1 MiB) for the attempt that holds `fence`, or with None while no attempt executes.

        Returns when it was stored, or None if the run is not in that state.
        """
        stored_at: datetime | None = await self._database.fetchval("put_checkpoint", run_id, data, fence)
        return stored_at

    async def output(self, run_id: UUID, attempt: int, position: int, count: int) -> list[OutputChunk]:
        """Return up to `count` chunks of an attempt's output, from the one that holds `position` on."""
        rows = await self._database.fetch("read_output", run_id, attempt, position, count)
        return [OutputChunk(row["position"], row["stream"], bytes(row["data"])) for row in rows]


def _run(row: Any) -> Run:
    fields = dict(row)
    for extra in ("floor", "walked", "position"):
        fields.pop(extra, None)
    if fields["outputs"] is not None:
        fields["outputs"] = msgspec.Raw(fields["outputs"])
    return Run(**fields)
