"""`retention` of a task: what its runs leave goes sooner than their records."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from scheduler.store.database import Database
from scheduler.store.history import History
from tests.roles.api.support import Client, FakeWorker
from tests.support.recurring import lead


async def ended(api: Client, worker: FakeWorker, database: Database, state: str = "completed", **fields: Any) -> str:
    """A run that ended an hour ago and left output, outputs and a checkpoint."""
    run: str = (await api.create(retry={"max_attempts": 2}, **fields))["last_run"]["id"]
    await worker.end(await worker.claim(run), state, outputs=b'{"n": "1"}', output_tail="tail")
    async with database.session() as connection:
        await connection.execute("INSERT INTO checkpoints VALUES ($1, 'x', 1, now())", UUID(run))
        await connection.execute("INSERT INTO output_chunks VALUES ($1, 1, 0, 'stdout', 'tail', now())", UUID(run))
        await connection.execute("UPDATE runs SET finished_at = now() - interval '1 hour' WHERE id = $1", UUID(run))
    return run


async def left(api: Client, run: str) -> tuple[Any, Any, bytes, int]:
    shown = (await api.get(f"/api/runs/{run}")).json
    logs = (await api.get(f"/api/runs/{run}/logs")).body
    return shown["outputs"], shown["output_tail"], logs, (await api.get(f"/api/runs/{run}/checkpoint")).status


EVERYTHING = ({"n": "1"}, "tail", b"tail", 200)


@pytest.mark.parametrize(("retention", "kept"), [("50m", False), (3599, False), ("70m", True), (None, True)])
async def test_what_a_run_leaves_goes_when_its_retention_is_over(
    api: Client, worker: FakeWorker, database: Database, retention: Any, kept: bool
) -> None:
    run = await ended(api, worker, database, retention=retention)
    other = await ended(api, worker, database, retention="1d")
    epoch = await lead(database)
    assert not await History(database).forget_left(epoch)
    assert await left(api, run) == (EVERYTHING if kept else (None, None, b"", 404))
    assert await left(api, other) == EVERYTHING
    assert (await api.get(f"/api/runs/{run}")).json["state"] == "completed"
    assert len((await api.get(f"/api/runs/{run}/attempts")).json["items"]) == 1


async def test_an_open_dead_letter_keeps_what_its_run_left_until_it_is_decided(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    run = await ended(api, worker, database, "dead_letter", retention="1m")
    history, epoch = History(database), await lead(database)
    await history.forget_left(epoch)
    assert await left(api, run) == EVERYTHING
    await api.post("/api/dead-letter/discard", {})
    await history.forget_left(epoch)
    assert await left(api, run) == (None, None, b"", 404)


async def test_runs_without_retention_stand_in_no_index_of_it(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    plain = await ended(api, worker, database)
    brief = await ended(api, worker, database, retention="1d")
    async with database.session() as connection:
        rows = await connection.fetch("SELECT id FROM runs WHERE kept_for IS NOT NULL")
    assert [str(row["id"]) for row in rows] == [brief] != [plain]


async def test_a_run_that_was_revived_keeps_its_checkpoint(api: Client, worker: FakeWorker, database: Database) -> None:
    run = await ended(api, worker, database, "failed", retention="1m")
    assert (await api.post(f"/api/runs/{run}/retry")).status == 200
    await History(database).forget_left(await lead(database))
    assert (await left(api, run))[3] == 200


async def test_many_runs_go_in_batches(
    api: Client, worker: FakeWorker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await ended(api, worker, database, retention=f"{n + 1}m") for n in range(5)]
    monkeypatch.setattr("scheduler.store.history._BATCH", 2)
    monkeypatch.setattr("scheduler.store.history._BATCHES", 2)
    history, epoch = History(database), await lead(database)
    assert await history.forget_left(epoch)
    assert not await history.forget_left(epoch)
    assert [await left(api, run) for run in runs] == [(None, None, b"", 404)] * 5
