"""What a worker does to runs: claim them under a new fence, and report how each attempt ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.ids import IdSource
from scheduler.domain.run import Claim, Outcome, Queued, RunState
from scheduler.failpoints import Point, reach
from scheduler.store.database import PASSING, Database, Executor, StoreUnavailable
from scheduler.store.group_commit import GroupCommit

_SPACING = 0.025
"""Seconds between full batches of reports: one costs PostgreSQL about 300 µs, and 15 µs for each outcome in it."""

NIL_UUID = UUID(int=0)


class Finished(msgspec.Struct, frozen=True):
    """The answer to a reported outcome.

    `applied` is False when the fence was no longer the run's: nothing was changed. Reporting the same outcome twice
    answers True both times, so a lost reply costs nothing. `state` is what the run became (a cancel may have come
    between), None when not applied or only repeated.
    """

    applied: bool
    state: RunState | None


class Settled(msgspec.Struct, frozen=True):
    """Dependents moved by runs that ended: `queued` must be offered to the broker, `ready` wait for the leader."""

    queued: list[Queued]
    ready: int


def queued_from(row: Any) -> Queued:
    """Build a Queued from a row with the columns run_id, lane, priority, run_at, seq, traceparent."""
    return Queued(
        run_id=row["run_id"],
        lane=row["lane"],
        priority=row["priority"],
        run_at=row["run_at"],
        seq=row["seq"],
        traceparent=row["traceparent"],
    )


async def settle_onward(executor: Executor, rows: Sequence[Any], lanes_open: Sequence[str]) -> Settled:
    """Read the `settled` rows of a statement and follow every skipped dependent to its own dependents.

    `rows` have the columns of the fragment `settle_dependents`; other kinds of row are passed over.
    """
    queued: list[Queued] = []
    ready = 0
    while rows:
        queued += [queued_from(row) for row in rows if row["kind"] == "queued"]
        ready += sum(row["kind"] == "ready" for row in rows)
        skipped = [row["run_id"] for row in rows if row["kind"] == "skipped"]
        rows = await executor.fetch("settle", skipped, list(lanes_open)) if skipped else []
    return Settled(queued, ready)


class Executions:
    """Claims and outcomes of one worker. `run` must be running for `finish` to return.

    `lanes_open` says which lanes' ready sets have room (dependents there are queued at once instead of waiting for the
    leader), and `on_settled` receives those dependents after the commit.
    """

    def __init__(
        self,
        database: Database,
        ids: IdSource,
        worker_id: UUID,
        *,
        lanes_open: Callable[[], Sequence[str]],
        on_settled: Callable[[Settled], Awaitable[None]],
    ) -> None:
        self._database = database
        self._claims: Executor = database
        self._reports: Executor = database
        self._ids = ids
        self._worker_id = worker_id
        self._lanes_open = lanes_open
        self._on_settled = on_settled
        self._outcomes: GroupCommit[Outcome, Finished] = GroupCommit(self._flush, max_batch=500, spacing=_SPACING)

    async def claim(self, offers: Sequence[tuple[UUID, int]]) -> list[Claim]:
        """Take (run id, dispatch_seq) offers: queued → running. Those that no longer stand are left out.

        Where that is because their queue was paused, they return to `pending`; should it not come to that, the leader
        withdraws them.
        """
        if not offers:
            return []
        offers = sorted(offers)  # every claimer locks in the order of ids
        run_ids, seqs = [o[0] for o in offers], [o[1] for o in offers]
        rows = await self._claims.fetch("claim", self._worker_id, run_ids, seqs, run_ids[0], run_ids[-1])
        if len(rows) < len(offers):
            with suppress(*PASSING):  # what was claimed is claimed, and has to be executed
                await self._claims.execute("refuse_paused", run_ids, seqs)
        return [_claim_from(row) for row in rows]

    async def claim_waiting(self, lanes: Sequence[str], limit: int, older_than: float) -> list[Claim]:
        """Take up to `limit` runs that have been queued for `older_than` seconds, without asking Redis."""
        rows = await self._database.fetch("claim_waiting", self._worker_id, list(lanes), limit, older_than)
        return [_claim_from(row) for row in rows]

    async def finish(self, outcome: Outcome) -> Finished:
        """Report one attempt's end; committed, together with whatever else ended meanwhile, when this returns.

        Raises what is `PASSING` when it may not have been applied: report it again.
        """
        return await self._outcomes.submit(outcome)

    async def run(self) -> None:
        """Flush outcomes until cancelled."""
        async with self._database.kept_connection() as claims, self._database.kept_connection() as reports:
            self._claims, self._reports = claims, reports
            try:
                await self._outcomes.run()
            finally:
                self._claims = self._reports = self._database

    async def _flush(self, outcomes: Sequence[Outcome]) -> list[Finished]:
        outcomes_by_id = sorted(outcomes, key=lambda o: o.run_id)
        graves = iter(self._ids.take(sum(o.state == "dead_letter" for o in outcomes_by_id)))
        lanes_open = self._lanes_open()
        await reach(Point.FINISH_SENDING)
        deaths = any(o.state == "dead_letter" for o in outcomes)
        rows = await self._reports.fetch(
            "finish_and_bury" if deaths else "finish",
            [o.run_id for o in outcomes_by_id],
            [o.fence for o in outcomes_by_id],
            [o.state for o in outcomes_by_id],
            [o.attempt_outcome for o in outcomes_by_id],
            [o.reason for o in outcomes_by_id],
            [o.exit_code for o in outcomes_by_id],
            [o.retry_in for o in outcomes_by_id],
            [o.started_at for o in outcomes_by_id],
            [o.finished_at for o in outcomes_by_id],
            [o.outputs for o in outcomes_by_id],
            [o.output_tail for o in outcomes_by_id],
            [next(graves) if o.state == "dead_letter" else None for o in outcomes_by_id],
            list(lanes_open),
            self._worker_id,
            outcomes_by_id[0].run_id,
            outcomes_by_id[-1].run_id,
        )
        await reach(Point.FINISH_COMMITTED, StoreUnavailable)
        applied: dict[UUID, RunState] = {}
        dependents = []
        for row in rows:
            if row["kind"] == "applied":
                applied[row["run_id"]] = row["state"]
            else:
                dependents.append(row)
        if dependents:
            await self._on_settled(await settle_onward(self._database, dependents, lanes_open))
        repeated = await self._already_finished([o for o in outcomes if o.run_id not in applied])
        return [Finished(o.run_id in applied or o.run_id in repeated, applied.get(o.run_id)) for o in outcomes]

    async def _already_finished(self, outcomes: Sequence[Outcome]) -> set[UUID]:
        if not outcomes:
            return set()
        rows = await self._database.fetch(
            "already_finished",
            [o.run_id for o in outcomes],
            [o.fence for o in outcomes],
            [o.attempt_outcome for o in outcomes],
        )
        return {row["run_id"] for row in rows}


def _claim_from(row: Any) -> Claim:
    return Claim(
        run_id=row["id"],
        task_id=row["task_id"],
        namespace=row["namespace"],
        fence=row["fence"],
        attempt=row["attempt"],
        failures=row["failures"],
        losses=row["losses"],
        suspect=row["suspect"],
        scheduled_for=row["scheduled_for"],
        started_at=row["started_at"],
        first_started_at=row["first_started_at"],
        traceparent=row["traceparent"],
        has_checkpoint=row["has_checkpoint"],
        spec=row["spec"],
    )
