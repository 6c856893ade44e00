"""The audit log: written with what it tells of, sealed by the leader, never changed.

Sealing needs to know when a stretch of the log is complete, although transactions commit in another order than they
drew their numbers, and without making any of them wait. Every row draws its number after its transaction has an id.
So: read the last number drawn, then take a transaction id; once every transaction below that id has ended, no row up
to that number can come any more. A long transaction anywhere on the server delays sealing, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from scheduler.domain.audit import Seal, faults_of, seal_after
from scheduler.store.database import Database, Executor
from scheduler.store.pages import WALK, Page, page_of
from scheduler.store.terms import fenced
from scheduler.wire.audit import AuditEntry

SEALED_AT_ONCE: Final = 10_000
_LAST: Final = (1 << 63) - 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be logged; see AuditEntry."""

    namespace: str | None
    actor: str
    action: str
    object: str | None
    request_id: str
    status: int
    version_before: int | None = None
    version_after: int | None = None
    count: int = 1
    address: str | None = None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries to list; None stands for any."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    denied: bool | None = None


class Mark(msgspec.Struct, frozen=True):
    """Rows up to `seq` are complete once every transaction below `transaction` has ended."""

    seq: int
    transaction: int


async def write_audit(executor: Executor, entries: Sequence[Entry]) -> None:
    """Log entries as part of whatever transaction `executor` stands for."""
    columns = zip(*(msgspec.structs.astuple(entry) for entry in entries), strict=True)
    await executor.execute("write_audit", *(list(column) for column in columns))


class Audit:
    """Reads, seals and verifies. All methods raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, namespace: str | None, wanted: AuditFilter, before: int | None, limit: int
    ) -> Page[AuditEntry]:
        """Return what was logged about a namespace (None: about anything), newest first."""
        walk = limit + 1 if wanted == AuditFilter() else WALK
        rows = await self._database.fetch(
            "list_audit" if namespace is not None else "list_audit_of_all",
            namespace,
            _LAST if before is None else min(max(before, 0), _LAST),
            limit + 1,
            walk,
            wanted.actor,
            wanted.action,
            wanted.object,
            wanted.denied,
        )
        return page_of(rows, limit, walk, lambda row: msgspec.convert(dict(row), AuditEntry))

    async def head(self) -> Seal | None:
        """Return the newest seal."""
        row = await self._database.fetchrow("audit_head")
        return None if row is None else Seal(**dict(row))

    async def mark(self, epoch: int) -> Mark | None:
        """Return up to where the log could be sealed, None if all of it is. Raises TermLost."""
        drawn: int = await self._database.fetchval("audit_drawn")
        head = await self.head()
        if drawn <= (head.last_seq if head is not None else 0):
            return None
        async with fenced(self._database, epoch) as executor:  # only now: its id has to be taken after the number
            return Mark(drawn, await executor.fetchval("audit_transaction"))

    async def seal(self, epoch: int, mark: Mark) -> Seal | None:
        """Seal the next stretch up to `mark`, None if rows of it may still come. Raises TermLost."""
        if await self._database.fetchval("audit_horizon") < mark.transaction:
            return None
        async with fenced(self._database, epoch) as executor:
            row = await executor.fetchrow("audit_head")
            previous = None if row is None else Seal(**dict(row))
            start = 0 if previous is None else previous.last_seq
            last = await executor.fetchval("audit_end_of_chunk", start, mark.seq, SEALED_AT_ONCE)
            rows, digest = await _digest(executor, start + 1, last)
            seal = seal_after(previous, last, rows, digest, await executor.fetchval("database_now"))
            await executor.execute("insert_seal", *msgspec.structs.astuple(seal), epoch)
        return seal

    async def faults(self) -> AsyncIterator[tuple[Seal, Sequence[str]]]:
        """Read the whole log again; yield every seal, with what is wrong there. What was pruned has only its seals."""
        previous: Seal | None = None
        pruned: int = await self._database.fetchval("audit_pruned")
        while rows := await self._database.fetch("list_seals", 0 if previous is None else previous.number, 100):
            for row in rows:
                seal = Seal(**dict(row))
                if seal.number <= pruned:
                    found = seal.rows, seal.digest
                else:
                    found = await _digest(self._database, seal.first_seq, seal.last_seq)
                yield seal, faults_of(previous, seal, *found)
                previous = seal

    async def prune(self, older_than: float, actor: str) -> tuple[int, int]:
        """Remove the entries under seals that are older than so many seconds; return (up to which seal, how many).

        The seals stay. An entry tells of it. Interrupted, the next call goes on. Only who owns the log may.
        """
        async with self._database.transaction() as executor:
            row = await executor.fetchrow("audit_prunable", older_than)
            if row is not None and row["number"] is not None:
                await executor.execute("insert_pruning", row["number"])
                entry = Entry(
                    namespace=None,
                    actor=actor,
                    action="prune_audit",
                    object=str(row["number"]),
                    request_id="-",
                    status=200,
                    count=row["rows"],
                )
                await write_audit(executor, [entry])
        removed, done = 0, False
        while not done:
            async with self._database.transaction() as executor:
                await executor.execute("allow_pruning")
                gone = await executor.fetch("prune_audit", SEALED_AT_ONCE)
            removed += len(gone)
            done = len(gone) < SEALED_AT_ONCE
        return await self._database.fetchval("audit_pruned"), removed

    async def unsealed(self, head: Seal | None) -> int:
        """Return how many rows stand after the newest seal."""
        count: int = await self._database.fetchval("audit_unsealed", 0 if head is None else head.last_seq)
        return count


async def _digest(executor: Executor, first: int, last: int) -> tuple[int, bytes]:
    row = await executor.fetchrow("audit_digest", first, last)
    assert row is not None, "an aggregate has one row"
    return row["rows"], row["digest"]
