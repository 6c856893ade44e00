from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pytest

from scheduler.api.role import follow_clock
from scheduler.domain.clock import SystemClock
from scheduler.domain.lane import lane_of
from scheduler.domain.run import Run
from scheduler.store.database import Database
from scheduler.store.gates import Gates
from scheduler.store.reaping import Reaping
from scheduler.wire.tasks import Task
from tests.roles.api.support import Client, FakeWorker, running_api
from tests.support.messages import heard
from tests.support.rows import IDS, run_row

UNKNOWN = "0190a5c0-0000-7000-8000-000000000000"


async def test_a_created_task_answers_with_all_its_fields_and_is_read_back_the_same(api: Client) -> None:
    created = await api.post(
        "/api/tasks", {"name": "a", "command": ["/bin/echo", "ü"], "env": {"K": "v"}, "timeout": "5m"}
    )
    assert created.status == 201
    task = created.json
    assert created.headers["location"] == f"/api/tasks/{task['id']}"
    assert created.headers["etag"] == '"1"'
    assert (task["timeout"], task["queue"], task["retry"]["max_attempts"]) == (300.0, "default", 1)
    assert (task["status"], task["version"], task["namespace"]) == ("pending", 1, "default")
    assert task["last_run"]["state"] == "pending"
    msgspec.convert(task, Task)
    read = await api.get(f"/api/tasks/{task['id']}")
    assert read.json == task
    assert read.headers["etag"] == '"1"'


async def test_a_run_that_nothing_blocks_goes_straight_to_an_open_lane(api: Client) -> None:
    await api.context.broker.mark_open("default")
    task = await api.create()
    assert task["status"] == "queued"
    assert (await api.run_of(task))["queued_at"] is not None
    later = await api.create(delay=60)
    assert later["status"] == "pending"


async def test_an_unknown_or_malformed_id_is_not_found(api: Client) -> None:
    for target in (f"/api/tasks/{UNKNOWN}", "/api/tasks/nonsense", f"/api/runs/{UNKNOWN}", "/api/runs/%00"):
        answer = await api.get(target)
        assert answer.status == 404, target
        assert answer.json["type"] == "urn:dts:problem:not-found"


async def test_a_batch_is_created_in_order_and_whole(api: Client) -> None:
    answer = await api.post("/api/tasks/batch", [{"name": f"t{n}", "command": "true"} for n in range(1201)])
    assert answer.status == 201
    items = answer.json["items"]
    assert len(items) == 1201
    for n in (0, 700, 1200):
        assert (await api.get(f"/api/tasks/{items[n]['id']}")).json["name"] == f"t{n}"
        assert (await api.get(f"/api/runs/{items[n]['run_id']}")).json["task_name"] == f"t{n}"


async def test_a_batch_may_come_as_lines(api: Client) -> None:
    lines = b'{"name":"a","command":"true"}\n\n{"name":"b","command":"true"}\n'
    answer = await api.post("/api/tasks/batch", raw=lines, headers={"content-type": "application/x-ndjson"})
    assert answer.status == 201
    assert len(answer.json["items"]) == 2
    broken = await api.post(
        "/api/tasks/batch", raw=lines + b'{"name":"c"}', headers={"content-type": "application/x-ndjson"}
    )
    assert (broken.status, broken.pointers) == (400, ["/2/command"])


async def test_one_bad_task_refuses_the_whole_batch_and_every_complaint_has_its_index(api: Client) -> None:
    tasks = [{"name": f"t{n}", "command": "true"} for n in range(1000)]
    tasks[3]["schedule"] = "0 0 31 2 *"
    tasks[900]["timezone"] = "Mars/Olympus"
    answer = await api.post("/api/tasks/batch", tasks)
    assert answer.status == 422
    assert answer.pointers == ["/3/schedule", "/900/timezone"]
    assert (await api.get("/api/tasks")).json["items"] == []


async def test_a_page_links_to_the_next_and_the_pages_hold_everything_once(api: Client) -> None:
    await api.post("/api/tasks/batch", [{"name": f"t{n}", "command": "true"} for n in range(25)])
    names: list[str] = []
    target = "/api/tasks?limit=10"
    pages = 0
    while target:
        page = await api.get(target)
        pages += 1
        names += [item["name"] for item in page.json["items"]]
        link = page.headers.get("link", "")
        assert bool(link) == (page.json["next_cursor"] is not None)
        target = link.partition(">")[0].lstrip("<")
    assert pages == 3
    assert names == [f"t{n}" for n in reversed(range(25))]


async def test_tasks_are_found_by_name_tag_queue_and_status(api: Client, worker: FakeWorker) -> None:
    a = await api.create("a", tags=["x", "y"])
    b = await api.create("b", queue="slow", tags=["y"])
    nightly = await api.create("nightly", schedule="0 3 * * *")
    await worker.end(await worker.claim(a["last_run"]["id"]))
    running = await worker.claim((await api.create("c"))["last_run"]["id"])

    async def names(query: str) -> list[str]:
        return [item["name"] for item in (await api.get(f"/api/tasks?{query}")).json["items"]]

    assert await names("name=a") == ["a"]
    assert await names("tag=y") == ["b", "a"]
    assert await names("queue=slow") == ["b"]
    assert await names("status=completed") == ["a"]
    assert await names("status=pending") == ["b"]
    assert await names("status=pending&queue=default") == []
    assert await names("status=running") == ["c"]
    assert await names("status=queued") == []
    assert await names("status=scheduled") == ["nightly"]
    assert await names("status=paused") == []
    await api.post(f"/api/tasks/{nightly['id']}/pause")
    assert await names("status=paused") == ["nightly"]
    assert await names("status=scheduled") == []
    await worker.end(running, "failed")
    assert await names("status=failed") == ["c"]
    assert b["status"] == "pending"
    for query in ("status=pending&tag=y", "tag=y&name=b&queue=slow", "status=pending&name=b&tag=y"):
        assert await names(query) == ["b"], query
    for query in ("status=completed&name=b", "status=completed&tag=z", "name=a&tag=z", "status=running&tag=y"):
        assert await names(query) == [], query
    assert await names("status=completed&tag=x&name=a") == ["a"]
    assert await names("status=paused&name=nightly") == ["nightly"]
    assert await names("status=paused&tag=y") == []
    assert await names("status=paused&name=a") == []


async def test_a_status_page_goes_on_where_it_ended(api: Client, worker: FakeWorker) -> None:
    for n in range(5):
        task = await api.create(f"t{n}")
        await worker.end(await worker.claim(task["last_run"]["id"]))
    first = (await api.get("/api/tasks?status=completed&limit=3")).json
    second = (await api.get(f"/api/tasks?status=completed&limit=3&cursor={first['next_cursor']}")).json
    assert [item["name"] for item in first["items"] + second["items"]] == ["t4", "t3", "t2", "t1", "t0"]
    assert second["next_cursor"] is None


async def test_a_replaced_task_has_a_new_version_and_its_waiting_run_follows(api: Client) -> None:
    task = await api.create("a", priority=3)
    answer = await api.request(
        "PUT",
        f"/api/tasks/{task['id']}",
        {"name": "b", "command": "date", "queue": "other", "priority": 8, "retry": {"max_attempts": 4}},
        headers={"if-match": '"1"'},
    )
    assert (answer.status, answer.headers["etag"]) == (200, '"2"')
    assert (answer.json["name"], answer.json["command"], answer.json["version"]) == ("b", "date", 2)
    run = await api.run_of(task)
    assert (run["queue"], run["priority"], run["max_attempts"], run["state"]) == ("other", 8, 4, "pending")


@pytest.mark.parametrize("comes_back", ["retried", "lost"])
async def test_a_run_whose_task_was_edited_while_it_executed_comes_back_where_the_new_definition_says(
    api: Client, worker: FakeWorker, comes_back: str
) -> None:
    database = api.context.database
    task = await api.create("a", retry={"max_attempts": 3})
    claim = await worker.claim(task["last_run"]["id"])
    edited = await api.request(
        "PATCH",
        f"/api/tasks/{task['id']}",
        {"queue": "other", "requires": {"gpu": "yes"}, "priority": 8, "concurrency": {"key": "db"}, "delay": 3600},
    )
    assert edited.status == 200
    executing = await run_row(database, claim.run_id)
    assert (executing["state"], executing["worker_id"], executing["fence"]) == ("running", worker.id, claim.fence)
    assert executing["run_at"] < executing["started_at"]
    assert await Gates(database).active(("default", "db")) == 1
    if comes_back == "retried":
        await worker.end(claim, "pending")
    else:
        await Reaping(database, IDS).reap(worker.id, renewal=None, epoch=None)
    run = await run_row(database, claim.run_id)
    assert (run["state"], run["queue"], run["priority"]) == ("pending", "other", 8)
    assert run["lane"] == lane_of("default", "other", "process", {"gpu": "yes"})
    assert [(head.run.lane, head.gate.concurrency) for head in await Gates(database).heads(("", "", -1), 10)] == [
        (run["lane"], ("default", "db"))
    ]


async def test_a_merge_patch_changes_what_it_names_and_null_restores_a_default(api: Client) -> None:
    task = await api.create("a", priority=3, env={"A": "1", "B": "2"}, tags=["t"])
    patch = {"env": {"A": None, "C": "3"}, "priority": None}
    answer = await api.request("PATCH", f"/api/tasks/{task['id']}", patch)
    assert answer.status == 200
    assert (answer.json["env"], answer.json["priority"], answer.json["tags"]) == ({"B": "2", "C": "3"}, 5, ["t"])


async def test_an_edit_that_says_nothing_new_raises_no_version(api: Client) -> None:
    task = await api.create("a", timeout="5m")
    answer = await api.request("PATCH", f"/api/tasks/{task['id']}", {"timeout": 300})
    assert (answer.status, answer.json["version"]) == (200, 1)


async def test_an_edit_with_the_wrong_version_changes_nothing(api: Client) -> None:
    task = await api.create("a")
    for method, body in (("PUT", {"name": "b", "command": "true"}), ("PATCH", {"name": "b"}), ("DELETE", None)):
        answer = await api.request(method, f"/api/tasks/{task['id']}", body, headers={"if-match": '"7"'})
        assert (answer.status, answer.headers["etag"]) == (412, '"1"'), method
    assert (await api.get(f"/api/tasks/{task['id']}")).json["name"] == "a"


async def test_a_task_stays_what_it_is(api: Client) -> None:
    once, nightly = await api.create("a"), await api.create("n", schedule="@daily")
    answer = await api.request("PATCH", f"/api/tasks/{once['id']}", {"schedule": "@daily"})
    assert (answer.status, answer.pointers) == (422, ["/schedule"])
    answer = await api.request("PATCH", f"/api/tasks/{nightly['id']}", {"schedule": None})
    assert (answer.status, answer.pointers) == (422, ["/schedule"])


async def test_a_new_schedule_plans_anew(api: Client) -> None:
    task = await api.create("n", schedule="0 3 * * *")
    changed = (await api.request("PATCH", f"/api/tasks/{task['id']}", {"schedule": "0 4 * * *"})).json
    assert task["next_fire_at"][11:16] == "03:00"
    assert changed["next_fire_at"][11:16] == "04:00"
    kept = (await api.request("PATCH", f"/api/tasks/{task['id']}", {"priority": 9})).json
    assert kept["next_fire_at"] == changed["next_fire_at"]


async def undecided(api: Client, task: Any) -> datetime:
    """Pause a daily task and take its plan three days back; return the last of the three fires that are then due."""
    assert (await api.post(f"/api/tasks/{task['id']}/pause")).status == 200
    newest = datetime.fromisoformat(task["next_fire_at"]) - timedelta(days=1)
    async with api.context.database.session() as connection:
        await connection.execute(
            "UPDATE tasks SET fire_cursor = $2::timestamptz - interval '3 days',"
            " next_fire_at = $2::timestamptz - interval '2 days' WHERE id = $1",
            UUID(task["id"]),
            newest,
        )
    return newest


async def cursor_of(api: Client, task: Any) -> datetime:
    async with api.context.database.session() as connection:
        cursor: datetime = await connection.fetchval("SELECT fire_cursor FROM tasks WHERE id = $1", UUID(task["id"]))
    return cursor


@pytest.mark.parametrize("patch", [{"timezone": "Asia/Kolkata"}, {"ends_at": "2099-01-01T00:00:00Z"}])
async def test_an_edit_that_gives_up_a_plan_records_what_had_come_due_of_it(api: Client, patch: Any) -> None:
    task = await api.create("n", schedule="0 3 * * *", catchup="all")
    newest = await undecided(api, task)
    edited = await api.request("PATCH", f"/api/tasks/{task['id']}", patch)
    assert edited.status == 200
    [fire] = (await api.get(f"/api/tasks/{task['id']}/fires")).json["items"]
    assert (fire["disposition"], fire["count"], fire["run_id"]) == ("missed", 3, None)
    assert datetime.fromisoformat(fire["scheduled_for"]) == newest - timedelta(days=2)
    assert datetime.fromisoformat(fire["until"]) == newest
    assert newest < await cursor_of(api, task) < datetime.fromisoformat(edited.json["next_fire_at"])


async def test_an_edit_that_moves_no_fire_leaves_what_has_come_due_to_catchup(api: Client) -> None:
    task = await api.create("n", schedule="0 3 * * *", catchup="all")
    newest = await undecided(api, task)
    for patch in ({"name": "m"}, {"queue": "other"}, {"schedule": "0  3 * * *"}):
        edited = await api.request("PATCH", f"/api/tasks/{task['id']}", patch)
        assert datetime.fromisoformat(edited.json["next_fire_at"]) == newest - timedelta(days=2), patch
    assert await cursor_of(api, task) == newest - timedelta(days=3)
    assert (await api.get(f"/api/tasks/{task['id']}/fires")).json["items"] == []


async def test_a_new_name_moves_the_fires_of_a_schedule_that_is_hashed_by_it(api: Client) -> None:
    task = await api.create("n", schedule="H H * * *")
    newest = await undecided(api, task)
    renamed = (await api.request("PATCH", f"/api/tasks/{task['id']}", {"name": "m"})).json
    assert renamed["next_fire_at"][11:16] != task["next_fire_at"][11:16]
    [fire] = (await api.get(f"/api/tasks/{task['id']}/fires")).json["items"]
    assert (fire["disposition"], datetime.fromisoformat(fire["until"])) == ("missed", newest)


async def test_a_schedule_that_cannot_be_read_may_be_replaced(api: Client) -> None:
    task = await api.create("n", schedule="0 3 * * *")
    async with api.context.database.session() as connection:
        await connection.execute("""UPDATE tasks SET spec = spec || '{"schedule": "never"}'""")
    mended = await api.request("PATCH", f"/api/tasks/{task['id']}", {"schedule": "0 4 * * *"})
    assert (mended.status, mended.json["next_fire_at"][11:16]) == (200, "04:00")


async def test_names_of_recurring_tasks_are_unique_and_those_of_others_need_not_be(api: Client) -> None:
    await api.create("n", schedule="@daily")
    answer = await api.post("/api/tasks", {"name": "n", "command": "true", "schedule": "@hourly"})
    assert (answer.status, answer.json["code"]) == (409, "name_taken")
    await api.create("n")
    other = await api.create("m", schedule="@daily")
    answer = await api.request("PATCH", f"/api/tasks/{other['id']}", {"name": "n"})
    assert (answer.status, answer.json["code"]) == (409, "name_taken")


async def test_pausing_holds_waiting_runs_and_resuming_lets_them_go(api: Client) -> None:
    await api.context.broker.mark_open("default")
    task = await api.create()
    paused = await api.post(f"/api/tasks/{task['id']}/pause")
    assert (paused.status, paused.json["paused"]) == (200, True)
    run = await api.run_of(task)
    assert run["state"] == "pending"
    explained = (await api.get(f"/api/runs/{run['id']}/explain")).json
    assert "task_paused" in [b["code"] for b in explained["blockers"]]
    resumed = await api.post(f"/api/tasks/{task['id']}/resume")
    assert resumed.json["paused"] is False
    explained = (await api.get(f"/api/runs/{run['id']}/explain")).json
    assert "task_paused" not in [b["code"] for b in explained["blockers"]]
    assert resumed.json["version"] == 1


async def test_cancel_ends_a_waiting_run_at_once_and_asks_for_the_end_of_an_executing_one(
    api: Client, worker: FakeWorker
) -> None:
    task = await api.create()
    cancelled = await api.post(f"/api/tasks/{task['id']}/cancel")
    assert (cancelled.status, cancelled.json["cancelled"]) == (200, [task["last_run"]["id"]])
    assert (await api.run_of(task))["reason"] == "cancelled"
    again = await api.post(f"/api/tasks/{task['id']}/cancel")
    assert (again.status, again.json["code"]) == (409, "already_terminal")

    task = await api.create()
    claim = await worker.claim(task["last_run"]["id"])
    async with heard(api.context.broker, f"worker:{worker.id}") as messages:
        requested = await api.post(f"/api/runs/{claim.run_id}/cancel")
        assert (requested.status, requested.json["requested"]) == (202, [str(claim.run_id)])
        assert await messages.receive() == str(claim.run_id).encode()
    assert (await api.run_of(task))["cancel_requested"] is True


async def test_cancelling_a_run_settles_what_waits_for_it(api: Client) -> None:
    upstream = await api.create("up")
    needs = await api.create("needs", depends_on=[{"task": "up"}])
    cleanup = await api.create("cleanup", depends_on=[{"task": upstream["id"], "on": "completion"}])
    last = await api.create("last", depends_on=[{"task": needs["id"]}])
    await api.post(f"/api/runs/{upstream['last_run']['id']}/cancel")
    assert [(await api.run_of(t))["state"] for t in (needs, cleanup, last)] == ["skipped", "pending", "skipped"]
    explained = (await api.get(f"/api/runs/{cleanup['last_run']['id']}/explain")).json
    assert "dependency" not in [b["code"] for b in explained["blockers"]]


async def test_delete_refuses_live_runs_and_dependents_unless_told_to_cancel_them(api: Client) -> None:
    upstream = await api.create("up")
    waiting = await api.create("down", depends_on=[{"task": upstream["id"]}])
    refused = await api.request("DELETE", f"/api/tasks/{upstream['id']}")
    assert (refused.status, refused.json["code"]) == (409, "live_runs")
    deleted = await api.request("DELETE", f"/api/tasks/{upstream['id']}?cascade=cancel")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await api.get(f"/api/tasks/{upstream['id']}")).status == 404
    assert (await api.get(f"/api/runs/{upstream['last_run']['id']}")).json["state"] == "cancelled"
    run = await api.run_of(waiting)
    assert (run["state"], run["reason"]) == ("skipped", "dependency_deleted")


async def test_delete_refuses_while_a_recurring_task_depends_on_it(api: Client) -> None:
    upstream = await api.create("up", schedule="@daily")
    await api.create("down", schedule="@daily", depends_on=[{"task": "up"}])
    refused = await api.request("DELETE", f"/api/tasks/{upstream['id']}")
    assert (refused.status, refused.json["code"]) == (409, "dependents")
    assert "'down'" in refused.json["detail"]


async def test_a_trigger_makes_a_run_and_obeys_the_overlap_policy(api: Client, worker: FakeWorker) -> None:
    task = await api.create("n", schedule="@daily")
    first = await api.post(f"/api/tasks/{task['id']}/trigger")
    assert (first.status, first.json["state"], first.json["trigger"]) == (201, "pending", "manual")
    assert first.headers["location"] == f"/api/runs/{first.json['id']}"
    msgspec.convert(first.json, Run)
    second = await api.post(f"/api/tasks/{task['id']}/trigger")
    assert (second.status, second.json["state"], second.json["reason"]) == (201, "skipped", "overlap")
    await api.request("PATCH", f"/api/tasks/{task['id']}", {"overlap": "buffer_one"})
    claim = await worker.claim(first.json["id"])
    third = (await api.post(f"/api/tasks/{task['id']}/trigger")).json
    assert third["state"] == "pending"
    explained = (await api.get(f"/api/runs/{third['id']}/explain")).json
    assert explained["blockers"][0]["code"] == "dependency"
    await worker.end(claim, "failed")
    explained = (await api.get(f"/api/runs/{third['id']}/explain")).json
    assert "dependency" not in [b["code"] for b in explained["blockers"]]


async def test_a_trigger_with_cancel_other_ends_the_waiting_run(api: Client) -> None:
    task = await api.create("n", schedule="@daily", overlap="cancel_other")
    first = (await api.post(f"/api/tasks/{task['id']}/trigger")).json
    second = (await api.post(f"/api/tasks/{task['id']}/trigger")).json
    assert second["state"] == "pending"
    ended = (await api.get(f"/api/runs/{first['id']}")).json
    assert (ended["state"], ended["reason"]) == ("cancelled", "overlap:cancel_other")


async def test_a_plan_names_the_next_fires_with_what_daylight_saving_does(api: Client) -> None:
    task = await api.create("n", schedule="30 2 * * *", timezone="Europe/Berlin")
    plan = (await api.get(f"/api/tasks/{task['id']}/plan?n=2&from=2027-03-27T00:00:00Z")).json["items"]
    assert [item["at"] for item in plan] == ["2027-03-27T01:30:00Z", "2027-03-29T00:30:00Z"]
    assert plan[0]["local"] == "2027-03-27T02:30:00+01:00"
    assert plan[0]["note"] is None
    assert "does not exist" in plan[1]["note"]
    assert (await api.get(f"/api/tasks/{task['id']}/fires")).json == {"items": [], "next_cursor": None}


async def test_a_one_off_task_has_an_empty_plan(api: Client) -> None:
    task = await api.create()
    assert (await api.get(f"/api/tasks/{task['id']}/plan")).json == {"items": []}


async def test_an_idempotency_key_gives_the_same_task_again_and_refuses_another_body(api: Client) -> None:
    body = {"name": "a", "command": "true", "idempotency_key": "k"}
    first, second = await api.post("/api/tasks", body), await api.post("/api/tasks", body)
    assert (first.status, second.status) == (201, 200)
    assert first.json["id"] == second.json["id"]
    other = await api.post("/api/tasks", {**body, "name": "b"})
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")


async def test_the_trace_of_the_caller_is_kept_with_the_run(api: Client) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await api.post(
        "/api/tasks", {"name": "a", "command": "true"}, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    )
    assert (await api.run_of(answer.json))["trace_id"] == trace


async def test_every_answer_bears_a_request_id(api: Client) -> None:
    for given in ("abc-1", "", "x" * 200, None):
        answer = await api.get(f"/api/tasks/{uuid.uuid4()}", headers={"x-request-id": given} if given else None)
        assert answer.json["request_id"] == answer.headers["x-request-id"]
        assert (answer.headers["x-request-id"] == given) == (given == "abc-1")


async def test_a_run_revived_while_it_waited_for_others_does_not_count_them_down(
    api: Client, worker: FakeWorker
) -> None:
    failing, slow = await api.create("failing"), await api.create("slow")
    both = await api.create("both", depends_on=[{"task": "failing"}, {"task": "slow"}])
    await worker.end(await worker.claim(failing["last_run"]["id"]), "failed")
    assert (await api.run_of(both))["state"] == "skipped"
    revived = await api.post(f"/api/runs/{both['last_run']['id']}/retry")
    assert revived.json["state"] == "pending"
    await worker.end(await worker.claim(slow["last_run"]["id"]))
    await worker.end(await worker.claim(both["last_run"]["id"]))


async def test_a_buffered_run_of_the_task_itself_is_no_dependent(api: Client) -> None:
    task = await api.create("n", schedule="@daily", overlap="buffer_all")
    first = (await api.post(f"/api/tasks/{task['id']}/trigger")).json
    second = (await api.post(f"/api/tasks/{task['id']}/trigger")).json
    assert (await api.request("DELETE", f"/api/tasks/{task['id']}?cascade=cancel")).status == 204
    for run in (first, second):
        ended = (await api.get(f"/api/runs/{run['id']}")).json
        assert (ended["state"], ended["reason"]) == ("cancelled", "task_deleted")


async def test_edits_of_one_task_at_the_same_time_all_count_or_are_refused(api: Client) -> None:
    task = await api.create("a")
    statuses: list[int] = []

    async def edit(n: int) -> None:
        answer = await api.request("PATCH", f"/api/tasks/{task['id']}", {"env": {f"K{n}": "v"}})
        statuses.append(answer.status)

    async with anyio.create_task_group() as group:
        for n in range(8):
            group.start_soon(edit, n)
    final = (await api.get(f"/api/tasks/{task['id']}")).json
    assert set(statuses) <= {200, 409}
    assert len(final["env"]) == statuses.count(200) == final["version"] - 1


async def test_ids_carry_the_time_of_the_database_when_the_apis_clock_is_wrong(
    database: Database, redis_url: str
) -> None:
    async with running_api(database, redis_url, clock=SystemClock(offset=-86400.0)) as api:
        await follow_clock(api.context)
        task = await api.create()
    async with database.session() as connection:
        age = await connection.fetchval("SELECT created_at - dts_time_of_id(id) FROM tasks WHERE id = $1", task["id"])
    assert abs(age.total_seconds()) < 60.0
