"""The end of a worker that nobody hears from, and what becomes of the runs it was executing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from scheduler.domain.ids import IdSource
from scheduler.domain.loss import Lost, Verdict, judge_losses
from scheduler.domain.observation import SeenLease
from scheduler.domain.retry import action_on_loss
from scheduler.domain.task import RetryRule
from scheduler.failpoints import Point, reach
from scheduler.store.database import RETRYABLE, Database, Executor, StoreUnavailable
from scheduler.store.execution import Settled, settle_onward
from scheduler.store.terms import hold_term

NO_LEASE = -1
"""The lease number of a worker that has no lease row."""


class Reaped(msgspec.Struct, frozen=True):
    """What was done. `applied` is False when the worker had ended before, or has renewed since.

    `states` counts what its runs became; with any in `pending`, or
    `settled.ready`, the leader has something to promote.
    """

    applied: bool
    states: Mapping[str, int]
    settled: Settled

    @property
    def promotable(self) -> bool:
        """Say whether anything waits for promotion now."""
        return bool(self.states.get("pending") or self.settled.ready)


_NOTHING = Reaped(False, {}, Settled([], 0))
_rules = msgspec.json.Decoder(list[RetryRule])


class Reaping:
    """Observes leases and ends workers. All methods raise StoreUnavailable when the database is away."""

    def __init__(self, database: Database, ids: IdSource) -> None:
        self._database = database
        self._ids = ids

    async def leases(self) -> dict[UUID, SeenLease]:
        """Return worker → its lease, for every worker that is live or draining."""
        return {
            row["id"]: SeenLease(row["renewal"], row["lasts"]) for row in await self._database.fetch("lease_numbers")
        }

    async def orphans(self) -> list[UUID]:
        """Return ended workers that still have executing runs; `reap` with `renewal=None` moves those."""
        return [row["worker_id"] for row in await self._database.fetch("orphan_workers")]

    async def reap(
        self, worker_id: UUID, *, renewal: int | None, epoch: int | None, reason: str = "lease_expired"
    ) -> Reaped:
        """End the worker and move its runs, in one transaction.

        `renewal`: only if its lease number still is this. `epoch`: only while that term leads, raising TermLost if it
        does not; None is for a guard that has seen the whole tree of its own worker dead.
        """
        while True:
            try:
                async with self._database.transaction() as executor:
                    reaped = await self._reap(executor, worker_id, renewal, epoch, reason)
            except RETRYABLE:
                continue
            await reach(Point.REAP_COMMITTED, StoreUnavailable)
            return reaped

    async def _reap(
        self, executor: Executor, worker_id: UUID, renewal: int | None, epoch: int | None, reason: str
    ) -> Reaped:
        if epoch is not None:
            await hold_term(executor, epoch)
        numbered = renewal is not None and renewal != NO_LEASE
        ended = await executor.fetchval("end_lease", worker_id, renewal if numbered else None)
        if numbered and ended is None:
            return _NOTHING
        applied = await executor.fetchval("bury_worker", worker_id, reason) is not None
        await reach(Point.REAP_FLIPPED)
        # A new statement, hence a new snapshot: it sees the claims that the one above has waited for.
        rows = await executor.fetch("lost_runs", worker_id)
        verdicts = judge_losses([_lost_from(row) for row in rows])
        settled = await self._write(executor, worker_id, verdicts)
        return Reaped(applied, Counter(verdict.state for verdict in verdicts), settled)

    async def _write(self, executor: Executor, worker_id: UUID, verdicts: Sequence[Verdict]) -> Settled:
        if not verdicts:
            return Settled([], 0)
        rows = await executor.fetch(
            "write_losses",
            worker_id,
            [v.run_id for v in verdicts],
            [v.state for v in verdicts],
            [v.reason for v in verdicts],
            [v.losses for v in verdicts],
            [v.suspect for v in verdicts],
            [v.retry_in for v in verdicts],
            [self._ids.one() if v.state == "dead_letter" else None for v in verdicts],
        )
        return await settle_onward(executor, rows, ())


def _lost_from(row: Any) -> Lost:
    try:
        rules = _rules.decode(row["rules"] or b"[]")
    except msgspec.ValidationError:  # written by a later release; what it left must be moved all the same
        rules = []
    return Lost(
        row["run_id"], row["losses"], row["suspect"], row["cancel_requested"], action_on_loss(rules, row["on_lost"])
    )
