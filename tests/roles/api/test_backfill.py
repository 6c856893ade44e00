"""Backfilling over HTTP, against a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduler.domain.backfill import Decided
from scheduler.store.backfill import decided_about
from scheduler.store.database import Database
from scheduler.store.history import History
from tests.roles.api.support import Client, FakeWorker

LAST_MONTH = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=45)


def day(n: int) -> str:
    return f"{LAST_MONTH + timedelta(days=n):%Y-%m-%dT%H:%M:%SZ}"


async def nightly(api: Client, **fields: Any) -> Any:
    return await api.create("nightly", schedule="0 0 * * *", **fields)


async def backfill(api: Client, task: Any, start: int, end: int, **fields: Any) -> Any:
    answer = await api.post(f"/api/tasks/{task['id']}/backfill", {"from": day(start), "to": day(end), **fields})
    assert answer.status in (200, 201), answer.body
    return answer.json


async def test_each_fire_gets_one_run_however_often_it_is_asked_for(api: Client) -> None:
    task = await nightly(api)
    first = await backfill(api, task, 0, 2)
    assert [(i["scheduled_for"], i["result"]) for i in first["items"]] == [(day(n), "run") for n in range(3)]
    again = await backfill(api, task, 1, 4)
    assert [i["result"] for i in again["items"]] == ["exists", "exists", "run", "run"]
    assert [i["run_id"] for i in again["items"][:2]] == [i["run_id"] for i in first["items"][1:]]
    runs = (await api.get(f"/api/tasks/{task['id']}/runs")).json["items"]
    assert sorted(run["scheduled_for"] for run in runs) == [day(n) for n in range(5)]
    assert {run["trigger"] for run in runs} == {"backfill"}
    fires = (await api.get(f"/api/tasks/{task['id']}/fires")).json["items"]
    assert [(f["scheduled_for"], f["disposition"]) for f in fires] == [(day(n), "late") for n in (4, 3, 2, 1, 0)]


async def test_a_dry_run_says_the_same_and_makes_nothing(api: Client) -> None:
    task = await nightly(api)
    planned = await backfill(api, task, 0, 2, dry_run=True, cap=2)
    assert [i["result"] for i in planned["items"]] == ["run", "run"]
    assert planned["next_from"] == day(2)
    assert not (await api.get(f"/api/tasks/{task['id']}/runs")).json["items"]
    assert not (await api.get(f"/api/tasks/{task['id']}/fires")).json["items"]


async def test_the_runs_wait_for_each_other(api: Client, worker: FakeWorker) -> None:
    task = await nightly(api)
    items = (await backfill(api, task, 0, 2))["items"]
    explained = (await api.get(f"/api/runs/{items[2]['run_id']}/explain")).json["blockers"]
    assert sorted(b["run_id"] for b in explained if b["code"] == "dependency") == [i["run_id"] for i in items[:2]]
    await worker.end(await worker.claim(items[0]["run_id"]))
    explained = (await api.get(f"/api/runs/{items[1]['run_id']}/explain")).json["blockers"]
    assert "dependency" not in {b["code"] for b in explained}


async def test_what_the_schedule_has_still_to_decide_is_left_to_it(api: Client) -> None:
    task = await api.create("often", schedule="* * * * *")
    answer = await backfill(api, task, 45, 90)
    assert not [i for i in answer["items"] if i["scheduled_for"] > answer["decided_until"]]


async def test_a_fire_taken_out_of_a_missed_stretch_leaves_the_rest_of_it(api: Client, database: Database) -> None:
    task = await nightly(api)
    async with database.session() as connection:
        await connection.execute(
            "INSERT INTO fires (task_id, scheduled_for, disposition, until, count, decided_at, epoch)"
            " VALUES ($1, $2, 'missed', $3, 10, now(), 1)",
            task["id"],
            LAST_MONTH,
            LAST_MONTH + timedelta(days=9),
        )
    await backfill(api, task, 0, 0)
    await backfill(api, task, 4, 5)
    fires = (await api.get(f"/api/tasks/{task['id']}/fires")).json["items"]
    assert [(f["scheduled_for"], f["disposition"], f["count"]) for f in reversed(fires)] == [
        (day(0), "late", 1),
        (day(1), "missed", 3),
        (day(4), "late", 1),
        (day(5), "late", 1),
        (day(6), "missed", 4),
    ]


async def test_no_more_is_read_than_what_was_decided_about_the_fires_that_are_asked_for(
    api: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task fired each minute, was missed for a while, and fires each hour now."""
    task = await api.create("often", schedule="0 * * * *")
    async with database.session() as connection:
        await connection.execute(
            "INSERT INTO fires (task_id, scheduled_for, disposition, until, count, decided_at, epoch)"
            " SELECT $1::uuid, $2::timestamptz + make_interval(mins => n), 'fired', NULL, 1, now(), 1"
            " FROM generate_series(0, 179) AS n WHERE n < 45 OR n > 90"
            " UNION ALL SELECT $1::uuid, $3::timestamptz, 'missed', $4::timestamptz, 46, now(), 1",
            task["id"],
            LAST_MONTH,
            LAST_MONTH + timedelta(minutes=45),
            LAST_MONTH + timedelta(minutes=90),
        )
    read: list[Decided] = []

    async def reading(*args: Any) -> list[Decided]:
        read[:] = await decided_about(*args)
        return read

    monkeypatch.setattr("scheduler.api.backfills.decided_about", reading)
    answer = await backfill(api, task, 0, 1, cap=2)
    assert [(item["result"], item["run_id"] is None) for item in answer["items"]] == [("exists", True), ("run", False)]
    assert answer["next_from"] == f"{LAST_MONTH + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    assert [(row.disposition, row.count) for row in read] == [("fired", 1), ("missed", 46)]
    fires = (await api.get(f"/api/tasks/{task['id']}/fires?disposition=missed")).json["items"]
    assert [fire["scheduled_for"][11:] for fire in reversed(fires)] == ["00:45:00Z", "01:30:00Z"]


async def test_old_fires_are_neither_an_alarm_nor_forgotten_while_their_backfill_is_new(
    api: Client, database: Database
) -> None:
    task = await nightly(api)
    await backfill(api, task, 0, 2)
    assert await History(database).uncovered() == []
    await database.execute("forget_old_fires", 30 * 86400.0, 1000)
    assert [i["result"] for i in (await backfill(api, task, 0, 2))["items"]] == ["exists"] * 3


async def test_what_cannot_be_backfilled_is_refused_and_says_why(api: Client) -> None:
    once, task = await api.create("once"), await nightly(api)
    path = f"/api/tasks/{task['id']}/backfill"
    refused = await api.post(f"/api/tasks/{once['id']}/backfill", {"from": day(0), "to": day(1)})
    assert (refused.status, refused.json["code"]) == (409, "not_recurring")
    assert (await api.post(path, {"from": day(1), "to": day(0)})).pointers == ["/to"]
    assert (await api.post(path, {"from": "0001-01-01T00:00:00+14:00", "to": day(0)})).pointers == ["/from"]
    assert (await api.post(path, {"from": day(0), "to": day(1), "cap": 0})).pointers == ["/cap"]
    assert (await api.post(path, {"from": day(0)})).status == 400
    assert (await api.post(path, {"from": day(0), "to": day(1), "overlap": "cancel_other"})).pointers == ["/overlap"]
    assert (await api.post(path.replace("01", "02", 1), {"from": day(0), "to": day(1)})).status == 404
