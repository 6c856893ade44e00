"""The audit log from the command line: read over HTTP, verified and pruned in the database."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from scheduler.cli import exits
from scheduler.store.audit import Audit, Entry, write_audit
from scheduler.store.database import Database
from tests.cli.conftest import Done, Dts
from tests.support.waiting import until

ENTRY = Entry(namespace=None, actor="key:x", action="create_task", object="o", request_id="r", status=201)


def test_who_did_what_is_listed_by_what_it_concerns(remote: Dts) -> None:
    task = remote("submit", "--name", "audited", "--delay", "1h", "--", "true").item
    (entry,) = remote("audit", "list", "--concerning", task["id"]).items
    assert (entry["action"], entry["status"], entry["version_after"]) == ("create_task", 201, 1)
    assert remote("task", "cancel", task["id"]).code == exits.OK
    assert [e["action"] for e in remote("audit", "list", "--concerning", task["id"]).items] == [
        "cancel_task",
        "create_task",
    ]
    assert remote("audit", "list", "--action", "create_task", "--concerning", task["id"], "--limit", 1).items == [entry]
    assert remote("audit", "list", "--actor", "key:nobody", "--every-namespace").items == []
    assert remote("audit", "list", "--denied", "--concerning", task["id"]).items == []


async def _seal_all(database: Database) -> str:
    async with database.session() as connection:
        epoch = await connection.fetchval(
            "UPDATE leadership SET epoch = epoch + 1, holder = gen_random_uuid() RETURNING epoch"
        )
    audit = Audit(database)
    mark = await audit.mark(epoch)
    assert mark is not None

    async def sealed() -> bool:
        return await audit.seal(epoch, mark) is not None

    await until(sealed)
    head = await audit.head()
    assert head is not None
    return head.head


@pytest.mark.anyio
async def test_tampering_is_found_and_a_head_that_was_kept_tells_of_a_log_cut_off(
    dts: Dts, database: Database, database_url: str
) -> None:
    async def call(*words: object) -> Done:
        return await anyio.to_thread.run_sync(lambda: dts("audit", *words, "--json", "--database-url", database_url))

    await write_audit(database, [ENTRY] * 3)
    head = await _seal_all(database)
    await write_audit(database, [ENTRY])
    whole = await call("verify", "--head", head)
    assert (whole.code, whole.item) == (
        exits.OK,
        {"ok": True, "faults": [], "rows": 3, "unsealed": 1, "head": head},
    )
    gone = await call("verify", "--head", f"9:{'0' * 64}")
    assert gone.code == exits.FAILURE
    assert "was cut off or rewritten" in gone.item["faults"][0]
    async with database.session() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("UPDATE audit_log SET actor = 'somebody else' WHERE seq = 2")
    found = await call("verify")
    assert (found.code, len(found.item["faults"])) == (exits.FAILURE, 1)
    pruned = None

    async def old_enough() -> bool:
        nonlocal pruned
        pruned = (await call("prune", "--older-than", "1s")).item
        return bool(pruned["removed"])

    await until(old_enough)
    assert pruned == {"removed": 3, "pruned_up_to_seal": 1}
    assert (await call("verify", "--head", head)).code == exits.OK


def test_an_age_that_is_none_is_said_before_anything_is_asked(dts: Dts) -> None:
    assert dts("audit", "prune", "--older-than", "soon").code == exits.USAGE
