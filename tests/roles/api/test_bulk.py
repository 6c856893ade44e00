"""Cancelling and retrying many runs by filter."""

from __future__ import annotations

from itertools import count
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import pytest

from scheduler.api import bulk
from scheduler.store.database import Database
from scheduler.store.runs import Runs
from tests.roles.api.support import Client, FakeWorker, running_api
from tests.support import until
from tests.support.locks import waiting_for_locks
from tests.support.rows import run_row


async def test_runs_of_a_queue_are_cancelled_and_no_others(api: Client, worker: FakeWorker) -> None:
    running = (await api.create("running", queue="q"))["last_run"]["id"]
    await worker.claim(running)
    first = await api.create("waits", queue="q")
    await api.create("blocked", queue="q", depends_on=[{"task": first["id"]}])
    held = await api.create("held", queue="q", delay=60)
    await api.post(f"/api/tasks/{held['id']}/pause")
    await api.create("other", queue="else")
    dry = (await api.post("/api/runs/cancel", {"queue": "q", "dry_run": True})).json
    assert len(dry["matched"]) == 4
    assert (dry["cancelled"], dry["requested"], dry["more"]) == ([], [], False)
    done = (await api.post("/api/runs/cancel", {"queue": "q"})).json
    assert set(done["matched"]) == set(dry["matched"])
    assert done["requested"] == [running]
    ended = {run["state"] for run in (await api.get("/api/runs?queue=q")).json["items"] if run["id"] != running}
    assert ended == {"cancelled"}
    other = (await api.get("/api/runs?queue=else")).json["items"][0]
    assert other["state"] in ("pending", "queued")


@pytest.mark.parametrize("state", ["pending", "queued", "running"])
async def test_the_state_is_a_filter(api: Client, worker: FakeWorker, state: str) -> None:
    await worker.claim((await api.create("a"))["last_run"]["id"])
    for name in ("b", "c"):
        await api.create(name, delay=60)
    async with api.context.database.session() as connection:
        await connection.execute(
            "UPDATE runs SET state = 'queued', queued_at = now()"
            " WHERE task_id IN (SELECT id FROM tasks WHERE name = 'c')"
        )
    matched = (await api.post("/api/runs/cancel", {"state": state, "dry_run": True})).json["matched"]
    runs = (await api.get(f"/api/runs?state={state}")).json["items"]
    assert len(runs) == 1
    assert matched == [runs[0]["id"]]


async def _answered_while(api: Client, database: Database, change: str, target: str, body: Any) -> Any:
    """What is answered if a change of the runs is committed between finding them and doing something to them."""
    answers: list[Any] = []

    async def ask() -> None:
        answers.append((await api.post(target, body)).json)

    async with anyio.create_task_group() as group, database.transaction() as executor:
        await executor.target.execute(f"UPDATE runs SET {change}")
        group.start_soon(ask)
        await until(lambda: waiting_for_locks(database), what="the run is waited for")
    return answers[0]


async def test_a_run_that_a_worker_takes_meanwhile_is_not_cancelled_as_a_queued_one(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    run_id = (await api.create())["last_run"]["id"]
    async with database.session() as connection:
        await connection.execute("UPDATE runs SET state = 'queued', queued_at = now()")
    taken = f"state = 'running', worker_id = '{worker.id}', fence = nextval('fence_seq'), attempt = 1"
    answer = await _answered_while(api, database, taken, "/api/runs/cancel", {"state": "queued", "queue": "default"})
    assert (answer["matched"], answer["cancelled"], answer["requested"]) == ([run_id], [], [])
    run = await run_row(database, UUID(run_id))
    assert (run["state"], run["cancel_requested"]) == ("running", False)


async def test_a_run_that_comes_to_another_end_meanwhile_is_not_retried(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    run_id = (await api.create())["last_run"]["id"]
    await worker.end(await worker.claim(run_id), "failed")
    answer = await _answered_while(api, database, "state = 'cancelled'", "/api/runs/retry", {"state": "failed"})
    assert (answer["matched"], answer["retried"]) == ([run_id], [])
    assert (await run_row(database, UUID(run_id)))["state"] == "cancelled"


async def _task_with_runs(api: Client, number: int) -> str:
    task: str = (await api.create("t", schedule="@hourly", overlap="allow_all"))["id"]
    for _ in range(number):
        await api.post(f"/api/tasks/{task}/trigger")
    return task


async def test_what_the_limit_leaves_is_for_the_next_request(api: Client) -> None:
    ask: dict[str, Any] = {"task_id": await _task_with_runs(api, 5), "limit": 3}
    first = (await api.post("/api/runs/cancel", ask)).json
    second = (await api.post("/api/runs/cancel", ask)).json
    assert (len(first["cancelled"]), first["more"], len(second["cancelled"]), second["more"]) == (3, True, 2, False)


async def test_a_collision_among_the_later_runs_lets_no_more_be_done_than_was_asked_for(
    api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = {"task_id": await _task_with_runs(api, 6), "limit": 4}
    monkeypatch.setattr(bulk, "_AT_ONCE", 2)
    cancel, numbers = Runs.cancel, count(1)

    async def collide_once(*args: Any, **kwargs: Any) -> Any:
        if next(numbers) == 2:
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        return await cancel(*args, **kwargs)

    monkeypatch.setattr(Runs, "cancel", collide_once)
    answer = (await api.post("/api/runs/cancel", ask)).json
    ended = [run["id"] for run in (await api.get("/api/runs?state=cancelled")).json["items"]]
    assert (len(ended), answer["more"]) == (4, True)
    assert sorted(answer["cancelled"]) == sorted(ended)


@pytest.mark.parametrize("keyed", [False, True])
async def test_what_was_done_before_the_database_took_too_long_is_told_or_taken_back(
    api: Client, database: Database, database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, keyed: bool
) -> None:
    ask = {"task_id": await _task_with_runs(api, 4)}
    found = (await api.post("/api/runs/cancel", {**ask, "dry_run": True})).json["matched"]
    monkeypatch.setattr(bulk, "_AT_ONCE", 2)
    impatient = await Database.connect(database_url, name="impatient", statement_timeout=0.5)
    try:
        async with running_api(impatient, redis_url) as other, database.transaction() as executor:
            await executor.target.execute("SELECT FROM runs WHERE id = $1 FOR UPDATE", UUID(found[-1]))
            headers = {"idempotency-key": "k"} if keyed else {}
            answer = await other.post("/api/runs/cancel", ask, headers=headers)
    finally:
        await impatient.close()
    ended = [run["id"] for run in (await api.get("/api/runs?state=cancelled")).json["items"]]
    if keyed:
        assert (answer.status, ended) == (503, [])
    else:
        assert (answer.status, answer.json["more"]) == (200, True)
        assert sorted(answer.json["cancelled"]) == sorted(ended) == sorted(found[:2])


async def test_everything_at_once_has_to_be_meant(api: Client) -> None:
    assert (await api.post("/api/runs/cancel", {})).status == 422
    assert (await api.post("/api/runs/retry", {})).status == 400
    assert (await api.post("/api/runs/cancel", {"queue": "q", "limit": 10_001})).status == 400


async def test_ended_runs_are_retried_by_state_unless_their_task_is_gone(api: Client, worker: FakeWorker) -> None:
    ids = []
    for name in ("a", "b", "gone"):
        task = await api.create(name)
        ids.append(task["last_run"]["id"])
        await worker.end(await worker.claim(ids[-1]), "failed")
    assert (await api.request("DELETE", f"/api/tasks/{task['id']}")).status == 204
    dry = (await api.post("/api/runs/retry", {"state": "failed", "dry_run": True})).json
    assert (sorted(dry["matched"]), dry["retried"]) == (sorted(ids), [])
    done = (await api.post("/api/runs/retry", {"state": "failed"})).json
    assert sorted(done["retried"]) == sorted(ids[:2])
    assert (await api.post("/api/runs/retry", {"state": "completed"})).status == 400
