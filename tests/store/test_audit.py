"""The audit log: append-only, sealed in whatever order transactions commit, and tampering shows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from scheduler.domain.audit import Seal, seal_after
from scheduler.store.audit import Audit, Entry, Mark, write_audit
from scheduler.store.database import Database
from tests.support.waiting import until

ENTRY = Entry(namespace="default", actor="key:x", action="create_task", object="o", request_id="r", status=201)


@pytest.fixture
async def epoch(database: Database) -> int:
    async with database.session() as connection:
        return int(
            await connection.fetchval(
                "UPDATE leadership SET epoch = epoch + 1, holder = gen_random_uuid() RETURNING epoch"
            )
        )


async def _seal(database: Database, epoch: int) -> Seal | None:
    """Seal all there is, once other tests' transactions on this server have ended; None if there is nothing."""
    audit = Audit(database)
    mark = await audit.mark(epoch)
    return None if mark is None else await _seal_to(audit, epoch, mark)


async def _seal_to(audit: Audit, epoch: int, mark: Mark) -> Seal:
    sealed: list[Seal] = []

    async def complete() -> bool:
        if (seal := await audit.seal(epoch, mark)) is not None:
            sealed.append(seal)
        return bool(sealed)

    await until(complete)
    return sealed[0]


async def _faults(database: Database) -> list[str]:
    return [fault async for _, faults in Audit(database).faults() for fault in faults]


async def _tamper(database: Database, *statements: str) -> None:
    """Change what nobody may change, as somebody who owns the database can."""
    async with database.session() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)


async def _three_seals(database: Database, epoch: int) -> None:
    for _ in range(3):
        await write_audit(database, [ENTRY] * 4)
        assert await _seal(database, epoch) is not None
    assert await _faults(database) == []


@pytest.mark.parametrize("table", ["audit_log", "audit_seals"])
@pytest.mark.parametrize("change", ["UPDATE {} SET rows = 0", "DELETE FROM {}", "TRUNCATE {}"])
async def test_nothing_is_ever_changed_or_removed(database: Database, epoch: int, table: str, change: str) -> None:
    await _three_seals(database, epoch)
    statement = change.format(table).replace("rows", "rows" if table == "audit_seals" else "count")
    async with database.session() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(statement)


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["UPDATE audit_log SET actor = 'somebody' WHERE seq = 6"], "at least one was changed"),
        (["UPDATE audit_log SET at = at + interval '1 us' WHERE seq = 6"], "at least one was changed"),
        (["DELETE FROM audit_log WHERE seq = 6"], "there were 4, and now there are 3"),
        (
            [
                "UPDATE audit_log SET seq = -1 WHERE seq = 6",
                "UPDATE audit_log SET seq = 6 WHERE seq = 7",
                "UPDATE audit_log SET seq = 7 WHERE seq = -1",
            ],
            "at least one was changed",
        ),
        (["TRUNCATE audit_log"], "there were 4, and now there are 0"),
        (["DELETE FROM audit_seals WHERE number = 2"], "seal 2 is missing"),
        (["UPDATE audit_seals SET digest = sha256('') WHERE number = 2"], "does not follow"),
        (["UPDATE audit_seals SET rows = 3 WHERE number = 2"], "does not follow"),
    ],
)
async def test_tampering_is_found(database: Database, epoch: int, statements: list[str], says: str) -> None:
    for number in range(12):
        await write_audit(
            database,
            [Entry(namespace="n", actor=f"a{number}", action="x", object=None, request_id="r", status=200)],
        )
        if number % 4 == 3:
            await _seal(database, epoch)
    assert await _faults(database) == []
    await _tamper(database, *statements)
    faults = await _faults(database)
    assert any(says in fault for fault in faults), faults


async def test_an_entry_that_commits_late_is_neither_lost_nor_sealed_early(
    database: Database, database_url: str, epoch: int
) -> None:
    other = await Database.connect(database_url, name="other")
    try:
        async with other.transaction() as late:
            await write_audit(late, [ENTRY])  # draws its number, and does not commit
            await write_audit(database, [ENTRY])
            audit = Audit(database)
            mark = await audit.mark(epoch)
            assert mark is not None
            assert await audit.seal(epoch, mark) is None
        seal = await _seal_to(audit, epoch, mark)
        assert (seal.first_seq, seal.last_seq, seal.rows) == (1, 2, 2)
    finally:
        await other.close()
    assert await _faults(database) == []


async def test_what_was_rolled_back_leaves_a_gap_that_seals_well(database: Database, epoch: int) -> None:
    class Stop(Exception):
        pass

    async def stop_halfway() -> None:
        async with database.transaction() as executor:
            await write_audit(executor, [ENTRY] * 3)
            raise Stop

    with pytest.raises(Stop):
        await stop_halfway()
    await write_audit(database, [ENTRY])
    seal = await _seal(database, epoch)
    assert seal is not None
    assert (seal.last_seq, seal.rows) == (4, 1)
    assert await _seal(database, epoch) is None
    assert await _faults(database) == []


async def test_cutting_off_the_end_shows_in_a_head_that_was_kept(database: Database, epoch: int) -> None:
    await _three_seals(database, epoch)
    kept: Any = await Audit(database).head()
    await _tamper(database, "DELETE FROM audit_seals WHERE number = 3", "DELETE FROM audit_log WHERE seq > 8")
    assert await _faults(database) == []
    assert kept.head not in [seal.head async for seal, _ in Audit(database).faults()]


async def test_the_oldest_part_may_go_and_the_chain_stays_whole(database: Database, epoch: int) -> None:
    await _three_seals(database, epoch)
    audit = Audit(database)
    assert await audit.prune(3600.0, "prune") == (0, 0)
    await _age(database, seals=2)
    assert await audit.prune(3600.0, "prune") == (2, 8)
    assert await audit.prune(3600.0, "prune") == (2, 0)
    assert await _faults(database) == []
    async with database.session() as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit_log") == 4 + 1
        assert await connection.fetchval("SELECT action FROM audit_log ORDER BY seq DESC LIMIT 1") == "prune_audit"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute("DELETE FROM audit_log")
    await _tamper(database, "UPDATE audit_log SET actor = 'somebody' WHERE seq = 9")
    assert [fault for fault in await _faults(database) if "at least one was changed" in fault]
    await _tamper(database, "UPDATE audit_seals SET rows = 3 WHERE number = 1")
    assert [fault for fault in await _faults(database) if "seal 1 does not follow" in fault]


async def _age(database: Database, *, seals: int) -> None:
    """Let the first seals have been made two hours ago, as if the leader had made them then."""
    async with database.session() as connection:
        rows = await connection.fetch(
            "SELECT number, first_seq, last_seq, rows, digest, hash, sealed_at FROM audit_seals ORDER BY number"
        )
    previous: Seal | None = None
    changes = []
    for row in rows:
        at = row["sealed_at"] - timedelta(hours=2) if row["number"] <= seals else row["sealed_at"]
        previous = seal_after(previous, row["last_seq"], row["rows"], row["digest"], at)
        changes.append(
            f"UPDATE audit_seals SET sealed_at = '{at.isoformat()}', hash = '\\x{previous.hash.hex()}'"
            f" WHERE number = {row['number']}"
        )
    await _tamper(database, *changes)
