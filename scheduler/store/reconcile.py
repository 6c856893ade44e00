"""What mends by looking: anything that a crash, a lost message or a race between two statements has left behind.

Reads come in bounded pages, each continuing where the last one ended, so that a sweep over a million rows costs the
same per step as one over ten. Writes are fenced by the term, judge every row again as it is now, and are no-ops when
nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from scheduler.domain.run import Queued
from scheduler.store.database import Database
from scheduler.store.execution import Settled, queued_from, settle_onward
from scheduler.store.terms import fenced

NIL = UUID(int=0)
_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)


class Page(msgspec.Struct, frozen=True):
    """Where the next page begins; None once a sweep has come to its end."""

    wrong: int
    after: UUID | None
    settled: Settled


class QueuedPage(msgspec.Struct, frozen=True):
    """Runs that have stood queued for a while, and where the next page begins (None: there is none)."""

    runs: list[Queued]
    after: tuple[datetime, UUID] | None


class Backlog(msgspec.Struct, frozen=True):
    """A lane's backlog: runs queued, runs waiting past their time, and for how many seconds the oldest of these has."""

    lane: str
    namespace: str
    queue: str
    queued: int
    due: int
    oldest_age: float


class Reconcile:
    """One method per kind of repair. All raise StoreUnavailable, those with `epoch` TermLost once it has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def identity(self) -> str:
        """Return what changes when this database is another one, was failed over, or was restored from a backup."""
        identity: str = await self._database.fetchval("identity")
        return identity

    async def lanes_built_for(self) -> str | None:
        """Return what `note_lanes_built` was last told."""
        built: str | None = await self._database.fetchval("lanes_built_for")
        return built

    async def note_lanes_built(self, epoch: int, servers: str) -> None:
        """Remember that the lanes in Redis were rebuilt for these servers."""
        async with fenced(self._database, epoch) as executor:
            await executor.execute("note_lanes_built", servers)

    async def backlog(self, limit: int) -> list[Backlog]:
        """Return the backlog of every lane, each number counted no further than `limit`."""
        return [msgspec.convert(dict(row), Backlog) for row in await self._database.fetch("lane_backlog", limit)]

    async def stale_queued(
        self, lane: str, priority: int, *, after: tuple[datetime, UUID] | None, older_than: float, limit: int
    ) -> QueuedPage:
        """Return a page of the runs that have been `queued` for `older_than` seconds, oldest `run_at` first."""
        since, last = after or (_BEGINNING, NIL)
        rows = await self._database.fetch("stale_queued", lane, priority, since, last, older_than, limit)
        runs = [queued_from(row) for row in rows]
        more = (runs[-1].run_at, runs[-1].run_id) if len(runs) == limit else None
        return QueuedPage(runs, more)

    async def withdraw_paused(self, epoch: int, *, limit: int) -> int:
        """Put queued runs of paused queues back to pending; return how many."""
        async with fenced(self._database, epoch) as executor:
            return len(await executor.fetch("withdraw_paused", limit))

    async def settle_missed(self, epoch: int, *, after: UUID | None, limit: int) -> Page:
        """Settle the edges whose upstream ended unseen: the leader died between writing them and looking again."""
        rows = await self._database.fetch("waiting_upstreams", after or NIL, limit)
        ended = sorted({row["id"] for row in rows if row["ended"]})
        settled = Settled([], 0)
        if ended:
            async with fenced(self._database, epoch) as executor:
                settled = await settle_onward(executor, await executor.fetch("settle", ended, []), ())
        return Page(len(ended), _next(rows, limit), settled)

    async def recount(self, epoch: int, *, after: UUID | None, limit: int) -> Page:
        """Correct blocked runs whose `unmet` is not the number of their waiting edges."""
        rows = await self._database.fetch("blocked_runs", after or NIL, limit)
        wrong = [row for row in rows if row["wrong"]]
        settled = Settled([], 0)
        if wrong:
            async with fenced(self._database, epoch) as executor:
                moved = await executor.fetch("recount", [row["id"] for row in wrong], [row["version"] for row in wrong])
                settled = await settle_onward(executor, moved, ())
        return Page(len(wrong), _next(rows, limit), settled)

    async def give_up_late(self, epoch: int, *, limit: int) -> tuple[int, Settled]:
        """Fail runs past their `start_before`; return how many, and what that did to their dependents."""
        async with fenced(self._database, epoch) as executor:
            rows = await executor.fetch("give_up_late", limit)
            settled = await settle_onward(executor, rows, ())
        return sum(row["kind"] == "ended" for row in rows), settled

    async def judge_held_letters(self, epoch: int, *, limit: int) -> int:
        """Decide about dead letters whose runs wait for canaries no more; return how many are open again."""
        async with fenced(self._database, epoch) as executor:
            return sum(row["in_vain"] for row in await executor.fetch("judge_held_letters", limit))

    async def clear_deleted_namespaces(self, epoch: int, *, limit: int) -> int:
        """Delete and cancel what got into namespaces while they were deleted; return how many tasks and runs ended.

        A request is let in before its body has come, and by a process that may hear of the deletion a little later.
        At most `limit` tasks and as many runs of a namespace at a time; workers hear with their next renewal.
        """
        cleared = 0
        for row in await self._database.fetch("deleted_namespaces_in_use", limit):
            name = row["name"]
            async with fenced(self._database, epoch) as executor:
                tasks = await executor.fetch("delete_tasks_of_namespace", name, limit)
                runs = await executor.fetch("live_runs_by_filter", name, None, None, limit)
                live = sorted(run["id"] for run in runs)
                rows = await executor.fetch("cancel_runs", live, name, [], "task_deleted", None)
                await settle_onward(executor, rows, ())
            cleared += len(tasks) + sum(row["kind"] == "cancelled" for row in rows)
        return cleared

    async def forget_answers(self, epoch: int, *, limit: int) -> int:
        """Delete up to `limit` keys of requests that have expired; return how many."""
        async with fenced(self._database, epoch) as executor:
            return len(await executor.fetch("forget_answers", limit))

    async def forget_workers(self, epoch: int, *, older_than: float) -> int:
        """Delete workers that ended `older_than` seconds ago; return how many."""
        async with fenced(self._database, epoch) as executor:
            return len(await executor.fetch("forget_workers", older_than))


def _next(rows: Sequence[object], limit: int) -> UUID | None:
    if len(rows) < limit:
        return None
    last: UUID = rows[-1]["id"]  # type: ignore[index]
    return last
