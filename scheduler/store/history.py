"""History by the week: partitions are made ahead of time and dropped whole, never emptied row by row.

Both need a brief exclusive lock on the tables of the hot path. They ask for it with a short timeout and try again
later, so that nobody queues up behind them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from scheduler.store.database import RETRYABLE, Database
from scheduler.store.terms import fenced
from scheduler.telemetry import get_logger

BUSY: Final = "busy"
"""The reason of what traffic was in the way of."""
MORE: Final = "what is left to delete"
"""The reason of what is done in part."""
TOO_LONG: Final = "a statement that takes too long"
"""The reason of what was cut short."""
SOON: Final = (BUSY, MORE)
"""The reasons for which it is worth trying again soon."""

_PATIENCE_MS: Final = 200
_AT_MOST_MS: Final = 5000  # while all work may have to wait: half of what an API's statement may take
_BATCH: Final = 100  # rows with what hangs on them: runs with their output, workflow runs with their tasks
_ROWS: Final = 1000  # rows on which nothing hangs
_BATCHES: Final = 50
_BUSY = (asyncpg.LockNotAvailableError, *RETRYABLE)

_log = get_logger("store")


class Obstacle(msgspec.Struct, frozen=True):
    """A week that could not be made, or is old enough to go and could not; and why."""

    week: datetime
    reason: str


class History:
    """All methods raise StoreUnavailable when the database is away, and TermLost once `epoch` has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_ahead(self, epoch: int, weeks: int, *, later: Collection[datetime] = ()) -> list[Obstacle]:
        """Make the partitions of this week and the next `weeks`, and of earlier ones whose rows are in none.

        Returns those that are still missing. Those that took too long, and are left for `later`, are among them: nobody
        can work while rows move.
        """
        missing = []
        for row in await self._database.fetch("missing_weeks", weeks):
            week = row["week"]
            reason: str | None = TOO_LONG
            if week not in later:
                reason = await self._briefly(epoch, "create_week", week, at_most_ms=_AT_MOST_MS)
            if reason:
                missing.append(Obstacle(week, reason))
        return missing

    async def drop_behind(self, epoch: int, retention: float) -> list[Obstacle]:
        """Drop the weeks that ended `retention` seconds ago; return those that had to stay."""
        kept: list[Obstacle] = []
        for row in await self._database.fetch("old_weeks", retention):
            week = row["week"]
            reasons = (await self._detach_week(epoch, week), await self._briefly(epoch, "detach_fires", week))
            kept += [Obstacle(week, reason) for reason in reasons if reason]
        await self._briefly(epoch, "drop_detached")
        return kept

    async def _detach_week(self, epoch: int, week: datetime) -> str | None:
        """Detach a week's runs and tasks. What of them stands elsewhere goes first, while nobody has to wait for it."""
        return (
            await self._briefly(epoch, "week_kept_for", week)
            or await self._in_batches(epoch, "forget_week_keys", week, limit=_ROWS)
            or await self._in_batches(epoch, "forget_week_checkpoints", week, limit=_BATCH)
            or await self._briefly(epoch, "detach_week", week)
        )

    async def forget(self, epoch: int, *, retention: float, dead_letters: float, undecided: float) -> dict[str, str]:
        """Delete what stands outside of the partitions and is older than this, in seconds, and what runs have left.

        Dead letters that nobody has decided about are closed after `undecided`: an open one holds its whole week.
        Returns the statements that have not come to an end, each with its reason: none keeps another from being run.
        """
        duties = {
            "close_dead_letters": (undecided, _ROWS),
            "forget_old_fires": (retention, _ROWS),
            "forget_dead_letters": (dead_letters, _ROWS),
            "forget_deleted_tasks": (retention, _ROWS),
            "forget_workflow_runs": (retention, _BATCH),
            "forget_events": (retention, _BATCH),
        }
        reasons = {
            statement: await self._in_batches(epoch, statement, age, limit=limit)
            for statement, (age, limit) in duties.items()
        }
        reasons["forget_left"] = await self.forget_left(epoch)
        return {statement: reason for statement, reason in reasons.items() if reason}

    async def forget_left(self, epoch: int) -> str | None:
        """Delete what runs have left whose tasks' `retention` is over; return why some of it is still there."""
        return await self._in_batches(epoch, "forget_left", limit=_BATCH)

    async def uncovered(self) -> list[str]:
        """Return the default partitions that hold rows: an alarm, for no week was made for these."""
        return [row["name"] for row in await self._database.fetch("uncovered")]

    async def _in_batches(self, epoch: int, statement: str, *args: object, limit: int) -> str | None:
        """Run a statement that says how many rows it took, up to `limit`, its last argument; return why some are left.

        Each time is a transaction of its own: what takes too long must not undo what went before, for ever.
        """
        try:
            for _ in range(_BATCHES):
                async with fenced(self._database, epoch) as executor:
                    if await executor.fetchval(statement, *args, limit) < limit:
                        return None
        except asyncpg.PostgresError as error:
            return _reason(error, statement, args)
        return MORE

    async def _briefly(self, epoch: int, statement: str, *args: object, at_most_ms: int | None = None) -> str | None:
        """Run a statement about one week; return why it did nothing. What fails does not stop other weeks."""
        try:
            async with fenced(self._database, epoch) as executor:
                await executor.execute("be_brief", str(_PATIENCE_MS))
                if at_most_ms is not None:
                    await executor.execute("be_quick", str(at_most_ms))
                answer: str | None = await executor.fetchval(statement, *args)
                return answer
        except asyncpg.PostgresError as error:
            return _reason(error, statement, args)


def _reason(error: asyncpg.PostgresError, statement: str, args: Sequence[object]) -> str:
    """Say why a statement did nothing; the log tells of what does not pass by itself."""
    if isinstance(error, _BUSY):
        return BUSY
    _log.error("history stays as it is", statement=statement, args=args, exc_info=error)
    return TOO_LONG if isinstance(error, asyncpg.QueryCanceledError) else f"{type(error).__name__}: {error}"
