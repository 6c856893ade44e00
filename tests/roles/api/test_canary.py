"""Dead letters replayed behind canaries: the others wait for these, and open again if that was in vain."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from scheduler.store.database import Database
from scheduler.store.invariants import check
from scheduler.store.reconcile import Reconcile
from tests.roles.api.support import Client, FakeWorker
from tests.support.recurring import lead


async def bury(api: Client, worker: FakeWorker, number: int, **fields: Any) -> list[str]:
    """Runs that are dead letters."""
    runs = []
    for n in range(number):
        task = await api.create(f"task-{n}", retry={"max_attempts": 2}, **fields)
        runs.append(task["last_run"]["id"])
        await worker.end(await worker.claim(runs[-1]), "dead_letter", reason="exit:1")
    return runs


async def replay(api: Client, runs: list[str], canary: int) -> list[str]:
    """Replay in the order of `runs`; return the results in that order."""
    letters = {item["run_id"]: item["id"] for item in (await api.get("/api/dead-letter")).json["items"]}
    answer = await api.post("/api/dead-letter/replay", {"ids": [letters[run] for run in runs], "canary": canary})
    assert answer.status == 200, answer.body
    return [item["result"] for item in answer.json["items"]]


async def state_of(api: Client, run: str) -> str:
    state: str = (await api.get(f"/api/runs/{run}")).json["state"]
    return state


async def open_letters(api: Client) -> set[str]:
    return {item["run_id"] for item in (await api.get("/api/dead-letter")).json["items"]}


async def in_order(database: Database) -> bool:
    found = [f for f in await check(database) if f.name in ("dead_letter_torn", "waits_for_the_ended")]
    return len(found) == 2 and not any(f.violations for f in found)


async def test_the_others_run_once_every_canary_has_completed(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    runs = await bury(api, worker, 4)
    assert await replay(api, runs, canary=2) == ["replayed", "replayed", "waiting", "waiting"]
    blockers = (await api.get(f"/api/runs/{runs[2]}/explain")).json["blockers"]
    assert [blocker["code"] for blocker in blockers if blocker["code"].startswith("dep")] != []
    mender, epoch = Reconcile(database), await lead(database)
    await worker.end(await worker.claim(runs[0]))
    assert await mender.judge_held_letters(epoch, limit=100) == 0
    assert (await api.get(f"/api/runs/{runs[2]}/explain")).json["blockers"] != []
    await worker.end(await worker.claim(runs[1]))
    assert {await state_of(api, run) for run in runs[2:]} <= {"pending", "queued"}
    await worker.end(await worker.claim(runs[2]))
    assert await mender.judge_held_letters(epoch, limit=100) == 0
    assert await open_letters(api) == set()
    # What dies again after the canaries is a new letter, not the old one, and one run never waits for itself.
    await worker.end(await worker.claim(runs[3]), "dead_letter", reason="exit:2")
    assert await mender.judge_held_letters(epoch, limit=100) == 0
    assert await open_letters(api) == {runs[3]}
    assert await in_order(database)
    async with database.session() as connection:
        rows = await connection.fetch("SELECT id FROM dead_letter_tasks WHERE run_id = $1 ORDER BY id", UUID(runs[3]))
    both = await api.post("/api/dead-letter/replay", {"ids": [str(row["id"]) for row in rows], "canary": 1})
    assert [item.get("code") for item in both.json["items"]] == ["already_replayed", None]
    assert (await api.get(f"/api/runs/{runs[3]}/explain")).json["state"] != "skipped"


@pytest.mark.parametrize("end", ["dies", "cancelled"])
async def test_letters_open_again_when_a_canary_does_not_complete(
    api: Client, worker: FakeWorker, database: Database, end: str
) -> None:
    runs = await bury(api, worker, 3)
    assert await replay(api, runs, canary=1) == ["replayed", "waiting", "waiting"]
    if end == "dies":
        await worker.end(await worker.claim(runs[0]), "dead_letter", reason="exit:1")
    else:
        assert (await api.post(f"/api/runs/{runs[0]}/cancel")).status == 200
    assert [await state_of(api, run) for run in runs[1:]] == ["skipped", "skipped"]
    mender, epoch = Reconcile(database), await lead(database)
    assert await mender.judge_held_letters(epoch, limit=100) == 2
    assert await mender.judge_held_letters(epoch, limit=100) == 0
    assert await open_letters(api) == {*runs[1:], *([runs[0]] if end == "dies" else [])}
    assert await in_order(database)
    # Open again is open: they can be replayed once more.
    assert await replay(api, runs[1:], canary=1) == ["replayed", "waiting"]
    assert not await open_letters(api) & set(runs[1:])
    await worker.end(await worker.claim(runs[1]))
    assert await state_of(api, runs[2]) in ("pending", "queued")


async def test_a_run_that_was_too_late_behind_its_canary_is_an_open_letter(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    runs = await bury(api, worker, 2, schedule_timeout=3600)
    await replay(api, runs, canary=1)
    async with database.session() as connection:
        await connection.execute("UPDATE runs SET start_before = now() WHERE id = $1", UUID(runs[1]))
    mender, epoch = Reconcile(database), await lead(database)
    await mender.give_up_late(epoch, limit=100)
    assert await mender.judge_held_letters(epoch, limit=100) == 1
    assert await open_letters(api) == {runs[1]}
    assert await in_order(database)


async def test_retrying_a_skipped_run_before_the_leader_looks_leaves_no_letter(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    runs = await bury(api, worker, 2)
    await replay(api, runs, canary=1)
    await api.post(f"/api/runs/{runs[0]}/cancel")
    assert (await api.post(f"/api/runs/{runs[1]}/retry")).status == 200
    assert await Reconcile(database).judge_held_letters(await lead(database), limit=100) == 0
    assert await open_letters(api) == set()


@pytest.mark.parametrize("canary", [0, 11, -1])
async def test_the_number_of_canaries_is_bounded(api: Client, canary: int) -> None:
    wrong = await api.post("/api/dead-letter/replay", {"canary": canary})
    assert (wrong.status, wrong.pointers) == (422, ["/canary"])
