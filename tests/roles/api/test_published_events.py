"""Events that somebody publishes start the tasks whose schedule they are, in one transaction with what says so."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import anyio
import pytest

from scheduler.api.settings import ApiSettings
from scheduler.store.database import Database
from scheduler.store.tasks import Tasks
from tests.roles.api.access_support import Closed
from tests.roles.api.support import Client, running_api
from tests.support.locks import waiting_for_locks
from tests.support.waiting import until


async def subscribe(api: Any, name: str, event: str = "built", **fields: Any) -> Any:
    return await api.create(name, schedule=f"@event {event}", **fields)


async def test_an_event_starts_each_task_that_waits_for_it_and_its_run_reads_the_payload(api: Client) -> None:
    first, second = await subscribe(api, "first"), await subscribe(api, "second", overlap="allow_all")
    await subscribe(api, "third", "other")
    assert (first["schedule"], first["next_fire_at"], first["status"]) == ("@event built", None, "scheduled")
    said = await api.post("/api/events/built", {"version": [1, 4]})
    assert said.status == 201, said.body
    assert {run["task_id"] for run in said.json["runs"]} == {first["id"], second["id"]}
    for begun in said.json["runs"]:
        run = (await api.get(f"/api/runs/{begun['run_id']}")).json
        assert (run["task_id"], run["state"] in ("queued", "pending")) == (begun["task_id"], True)
        event = (await api.get(f"/api/runs/{begun['run_id']}/event")).json
        assert (event["id"], event["payload"], event["name"]) == (said.json["id"], {"version": [1, 4]}, "built")
    again = (await api.post("/api/events/built")).json
    states = {run["task_id"]: (await api.get(f"/api/runs/{run['run_id']}")).json["reason"] for run in again["runs"]}
    assert states == {first["id"]: "overlap", second["id"]: None}
    listed = (await api.get("/api/events?name=built&limit=1")).json
    assert (listed["items"], bool(listed["next_cursor"])) == ([again], True)
    rest = (await api.get(f"/api/events?limit=1&cursor={listed['next_cursor']}&name=built")).json
    assert rest == {"items": [said.json], "next_cursor": None}
    entry = (await api.get("/api/audit?action=publish_event")).json["items"][-1]
    assert (entry["object"], entry["count"], entry["status"]) == ("built", 2, 201)


async def test_an_event_that_is_delivered_twice_starts_nothing_twice(api: Client) -> None:
    task = await subscribe(api, "deploy")
    key = {"idempotency-key": "delivery-1"}
    first = await api.post("/api/events/built", {"n": 1}, headers=key)
    second = await api.post("/api/events/built", {"n": 1}, headers=key)
    assert (first.status, second.json, second.headers["idempotency-replayed"]) == (201, first.json, "true")
    assert len((await api.get(f"/api/tasks/{task['id']}/runs")).json["items"]) == 1


async def test_who_is_paused_or_out_of_time_or_deleted_is_not_started(api: Client) -> None:
    paused = await subscribe(api, "paused")
    await api.post(f"/api/tasks/{paused['id']}/pause")
    await subscribe(api, "not yet", starts_at="2090-01-01T00:00:00Z")
    gone = await subscribe(api, "gone")
    await api.request("DELETE", f"/api/tasks/{gone['id']}")
    assert (await api.post("/api/events/built")).json["runs"] == []
    await api.post(f"/api/tasks/{paused['id']}/resume")
    (begun,) = (await api.post("/api/events/built")).json["runs"]
    assert begun["task_id"] == paused["id"]


@pytest.mark.parametrize("change", ["deleted_at = dts_now()", "paused = true"])
async def test_an_event_that_meets_the_end_of_one_task_starts_the_others(
    api: Client, database: Database, change: str
) -> None:
    first, second = await subscribe(api, "first"), await subscribe(api, "second")
    said = []

    async def publish() -> None:
        said.append(await api.post("/api/events/built"))

    async with anyio.create_task_group() as group, database.transaction() as executor:
        assert await Tasks(database).lock(executor, "default", UUID(second["id"]))
        group.start_soon(publish)
        await until(lambda: waiting_for_locks(database))
        await executor.target.execute(f"UPDATE tasks SET {change} WHERE id = $1", UUID(second["id"]))
    assert [answer.status for answer in said] == [201]
    assert [run["task_id"] for run in said[0].json["runs"]] == [first["id"]]


async def test_when_one_of_them_cannot_be_taken_none_is_and_nothing_is_left(database: Database, redis_url: str) -> None:
    async with running_api(database, redis_url, ApiSettings(development=True, max_pending=3)) as api:
        for name in ("one", "two"):
            await subscribe(api, name)
        assert (await api.post("/api/events/built")).status == 503
        assert (await api.get("/api/events")).json["items"] == []
        assert (await api.get("/api/runs")).json["items"] == []


async def test_a_workflow_takes_its_parameters_of_the_payload(api: Client) -> None:
    flow = {
        "name": "release",
        "schedule": "@event  tagged",
        "parameters": {"TAG": "none", "DRY": "yes"},
        "tasks": [{"name": "t", "command": "true"}],
    }
    made = await api.post("/api/workflows", flow)
    assert (made.status, made.json["schedule"]) == (201, "@event tagged")
    (begun,) = (await api.post("/api/events/tagged", {"TAG": "v1", "DRY": 0, "X": "y"})).json["runs"]
    run = (await api.get(f"/api/workflow-runs/{begun['run_id']}")).json
    assert run["parameters"] == {"TAG": "v1", "DRY": "yes"}
    (begun,) = (await api.post("/api/events/tagged")).json["runs"]
    assert (await api.get(f"/api/runs/{begun['run_id']}")).json["state"] in ("pending", "skipped")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"schedule": "@event"}, "/schedule"),
        ({"schedule": "@event a b"}, "/schedule"),
        ({"schedule": "@event stream"}, "/schedule"),
        ({"schedule": "@event x", "jitter": 5}, "/jitter"),
        ({"schedule": "@event x", "calendars": ["c"]}, "/calendars"),
        ({"schedule": "@event x", "depends_on": [{"task": "a"}]}, "/depends_on"),
    ],
)
async def test_what_makes_no_sense_with_an_event_is_refused(api: Client, body: Any, pointer: str) -> None:
    refused = await api.post("/api/tasks", {"name": "t", "command": "true", **body})
    assert (refused.status, refused.pointers) == (422, [pointer])


async def test_names_and_payloads_that_cannot_be_are_refused(api: Client) -> None:
    assert (await api.post("/api/events/a%20b")).status == 422
    assert (await api.post("/api/events/stream")).status == 405
    assert (await api.post("/api/events/x", raw=b"{", headers={"content-type": "application/json"})).status == 400
    assert (await api.post("/api/events/x", "\0")).status == 422
    assert (await api.post("/api/events/x", "y" * 262_144)).status == 413
    run = await api.run_of(await api.create("plain"))
    assert (await api.get(f"/api/runs/{run['id']}/event")).status == 404


async def test_nobody_starts_or_sees_what_is_of_another_namespace(closed: Closed) -> None:
    await closed.namespace("team-a")
    admin = await closed.key("admin")
    task = await subscribe(admin, "default's")
    other = await closed.key("operator", namespaces=["team-a"])
    assert (await other.post("/api/events/built")).json["runs"] == []
    (begun,) = (await admin.post("/api/events/built")).json["runs"]
    assert begun["task_id"] == task["id"]
    assert (await other.get(f"/api/runs/{begun['run_id']}/event")).status == 404
    assert len((await other.get("/api/events")).json["items"]) == 1
    viewer = await closed.key("viewer")
    assert (await viewer.post("/api/events/built")).status == 403


async def test_no_schedule_waits_for_planned_times_of_what_has_none(api: Client) -> None:
    stored = await subscribe(api, "stored")
    for other in (stored["id"], "stored"):
        nightly = {"name": "n", "command": "true", "schedule": "@daily", "depends_on": [{"task": other}]}
        refused = await api.post("/api/tasks", nightly)
        assert (refused.status, refused.pointers) == (422, ["/depends_on/0/task"])
    once = {"name": "o", "command": "true", "depends_on": [{"task": stored["id"]}]}
    assert (await api.post("/api/tasks", once)).status == 422
    await api.post("/api/events/built")
    assert (await api.post("/api/tasks", once)).status == 201


async def test_nothing_waits_for_a_task_of_its_batch_that_has_no_run_and_no_planned_time(api: Client) -> None:
    event = {"name": "e", "command": "true", "schedule": "@event built"}
    for fields in ({}, {"schedule": "@daily"}):
        dependent = {"name": "d", "command": "true", "depends_on": [{"task": "e"}], **fields}
        refused = await api.post("/api/tasks/batch", [event, dependent])
        assert (refused.status, refused.pointers) == (422, ["/1/depends_on/0/task"]), refused.body
