"""The leader's term: one row whose epoch fences every write of the scheduler role.

A leader's write holds the row FOR KEY SHARE until it commits; taking over raises the epoch, which is a key, and so
waits for such writes. A renewal touches other columns and waits for nobody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import anyio
import asyncpg
import msgspec

from scheduler.domain.term import TermLost, TermReading
from scheduler.failpoints import Point, reach
from scheduler.service import sleep
from scheduler.store.database import Database, Executor, StoreUnavailable
from scheduler.wire.report import LeaderReport


def leader_settings(ttl: float) -> dict[str, str]:
    """Return the session settings of a leader's connections, for `Database.connect(settings=…)`.

    A leader that is stopped while it holds locks loses them before its successor may take over, and no statement of a
    leader waits for a lock for longer than its term lasts.
    """
    milliseconds = str(int(ttl * 1000 * 0.6))
    return {"lock_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds}


class Terms:
    """Who leads. All methods raise StoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> tuple[TermReading, datetime]:
        """Return the row, and PostgreSQL's time."""
        row = await self._database.fetchrow("read_term")
        if row is None:
            raise LookupError("the table leadership has lost its row")
        return TermReading(row["epoch"], row["holder"], row["renewal"]), row["now"]

    async def take(self, seen: TermReading, holder: UUID, *, host: str, pid: int, patience: float = 1.0) -> int | None:
        """Begin a new term if the row is still as `seen`, and return its epoch; None if somebody else moved it.

        Whoever makes this wait for longer than `patience` seconds is a stopped leader: its sessions are ended.
        """
        epoch: int | None = None
        try:
            async with self._database.transaction() as executor:
                backend = await executor.fetchval("own_backend")
                async with self._clearing_the_way(backend, patience):
                    epoch = await executor.fetchval(
                        "take_term", seen.epoch, seen.holder, seen.renewal, holder, host, pid
                    )
        except asyncpg.LockNotAvailableError:
            return None
        return epoch

    async def renew(self, epoch: int, holder: UUID) -> datetime | None:
        """Raise the renewal number of our term and return PostgreSQL's time; None if the term is not ours any more."""
        now: datetime | None = await self._database.fetchval("renew_term", epoch, holder)
        return now

    async def report(self, report: LeaderReport) -> None:
        """Store what the leader says of itself. Raises TermLost once its epoch has ended."""
        if await self._database.fetchval("report_term", report.epoch, msgspec.json.encode(report)) is None:
            raise TermLost(f"epoch {report.epoch} has ended")

    async def release(self, epoch: int, holder: UUID) -> bool:
        """Give the term up; return whether it was ours."""
        return await self._database.fetchval("release_term", epoch, holder) is not None

    @asynccontextmanager
    async def _clearing_the_way(self, backend: int, patience: float) -> AsyncIterator[None]:
        async def clear() -> None:
            while not done:
                await sleep(patience)
                try:
                    await self._database.execute("end_blockers", backend)
                except StoreUnavailable:
                    return  # then the statement that waits fails as well

        done = False
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(clear, name="terms:clear the way")
            try:
                yield
            except Exception as error:  # noqa: BLE001  # raised again below, outside the task group
                failure = error
            done = True
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure


@asynccontextmanager
async def fenced(database: Database, epoch: int) -> AsyncIterator[Executor]:
    """Hold a transaction that can only commit while `epoch` leads. Raises TermLost if it does not."""
    async with database.transaction() as executor:
        await hold_term(executor, epoch)
        yield executor


async def hold_term(executor: Executor, epoch: int) -> None:
    """Let a transaction commit only while `epoch` leads. Raises TermLost if it does not."""
    if await executor.fetchval("hold_term", epoch) is None:
        raise TermLost(f"epoch {epoch} has ended")
    await reach(Point.TERM_HELD)
