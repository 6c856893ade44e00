"""Namespaces: nothing of another is visible, and what each may have is bounded."""

from __future__ import annotations

import pytest

from tests.roles.api.access_support import Caller, Closed
from tests.roles.api.support import FakeWorker
from tests.support import until


async def tenants(closed: Closed) -> tuple[Caller, Caller]:
    """The admins of two namespaces."""
    await closed.namespace("a")
    await closed.namespace("b")
    return await closed.key("admin", namespaces=["a"]), await closed.key("admin", namespaces=["b"])


async def items(caller: Caller, target: str) -> list[object]:
    answer = await caller.get(target)
    assert answer.status == 200, answer.body
    found: list[object] = answer.json["items"]
    return found


async def test_no_object_of_another_namespace_answers_by_its_id(closed: Closed, worker: FakeWorker) -> None:
    mine, theirs = await tenants(closed)
    task = await theirs.create("secret")
    run = task["last_run"]["id"]
    claim = await worker.claim(run)
    recurring = await theirs.create("nightly", schedule="@daily")
    for method, target, body in (
        *(("GET", f"/api/tasks/{task['id']}{tail}", None) for tail in ("", "/runs", "/plan", "/fires")),
        *(("POST", f"/api/tasks/{task['id']}/{verb}", None) for verb in ("trigger", "pause", "resume", "cancel")),
        ("PUT", f"/api/tasks/{task['id']}", {"name": "x", "command": "true"}),
        ("PATCH", f"/api/tasks/{task['id']}", {"priority": 1}),
        ("DELETE", f"/api/tasks/{task['id']}?cascade=cancel", None),
        *(
            ("GET", f"/api/runs/{run}{tail}", None)
            for tail in ("", "/attempts", "/logs", "/logs?follow=true", "/outputs", "/explain", "/checkpoint")
        ),
        ("GET", f"/api/runs/{run}/fence/{claim.fence}", None),
        *(("POST", f"/api/runs/{run}/{verb}", None) for verb in ("cancel", "retry")),
    ):
        answer = await mine.request(method, target, body)
        assert answer.status == 404, (method, target, answer.body)
    put = await mine.request("PUT", f"/api/runs/{run}/checkpoint?fence={claim.fence}", raw=b"x")
    assert put.status == 404
    waits = await mine.post("/api/tasks", {"name": "x", "command": "true", "depends_on": [{"task": recurring["id"]}]})
    assert waits.status == 422
    by_name = await mine.post("/api/tasks", {"name": "x", "command": "true", "depends_on": [{"task": "nightly"}]})
    assert by_name.status == 422
    assert (await theirs.get(f"/api/runs/{run}")).json["state"] == "running"


async def test_listings_and_their_cursors_hold_nothing_of_other_namespaces(closed: Closed, worker: FakeWorker) -> None:
    mine, theirs = await tenants(closed)
    own = [await mine.create("own", tags=["t"])]
    for number in range(5):
        foreign = await theirs.create("theirs", tags=["t"], queue=f"q{number}")
        claim = await worker.claim(foreign["last_run"]["id"])
        if number:
            await worker.end(claim, "dead_letter", reason="exit:1")
    own.append(await mine.create("own", tags=["t"]))
    wanted = {task["id"] for task in own}
    for target in ("/api/tasks?limit=1", "/api/tasks?limit=1&tag=t", "/api/tasks?limit=1&status=pending"):
        seen, cursor = set(), ""
        while True:
            answer = await mine.get(target + cursor)
            assert answer.status == 200, answer.body
            seen |= {item["id"] for item in answer.json["items"]}
            if answer.json["next_cursor"] is None:
                break
            cursor = f"&cursor={answer.json['next_cursor']}"
        assert seen == wanted, target
    for target in (
        "/api/tasks?name=theirs",
        "/api/tasks?status=running",
        "/api/tasks?status=dead_letter",
        "/api/runs?state=running",
        "/api/runs?state=dead_letter",
        "/api/dead-letter",
    ):
        answer = await mine.get(target)
        assert (answer.json["items"], answer.json["next_cursor"]) == ([], None), target
    assert len(await items(mine, "/api/runs")) == 2
    assert [queue["name"] for queue in (await mine.get("/api/queues")).json["items"]] == ["default"]
    # Even a cursor that was made there shows nothing of it here.
    page = (await theirs.get("/api/runs?limit=1")).json
    assert all(
        item["namespace"] == "a" for item in (await mine.get(f"/api/runs?cursor={page['next_cursor']}")).json["items"]
    )


async def test_workers_are_shared_but_what_they_run_for_others_is_not_shown(closed: Closed, worker: FakeWorker) -> None:
    mine, theirs = await tenants(closed)
    task = await theirs.create()
    await worker.claim(task["last_run"]["id"])
    (seen,) = (await mine.get("/api/workers")).json["items"]
    assert (seen["id"], seen["running"]) == (str(worker.id), 0)
    (seen,) = (await theirs.get("/api/workers")).json["items"]
    assert seen["running"] == 1
    assert (await theirs.post(f"/api/workers/{worker.id}/drain")).status == 403


async def test_a_name_means_something_else_in_each_namespace(closed: Closed) -> None:
    mine, theirs = await tenants(closed)
    first, second = await mine.create("same", schedule="@daily"), await theirs.create("same", schedule="@daily")
    assert (first["namespace"], second["namespace"]) == ("a", "b")
    await mine.post("/api/queues/default/pause")
    assert not any(queue["paused"] for queue in (await theirs.get("/api/queues")).json["items"])


async def test_how_many_fire_at_the_same_minute_counts_ones_own(closed: Closed) -> None:
    mine, theirs = await tenants(closed)
    task = await mine.create("x", schedule="0 3 * * *")
    for number in range(3):
        await theirs.create(f"y{number}", schedule="0 3 * * *")
    assert (await mine.get(f"/api/tasks/{task['id']}/plan?n=1")).json["items"][0]["load"] == 1


async def test_the_header_chooses_among_ones_namespaces(closed: Closed) -> None:
    await closed.namespace("a")
    both = await closed.key("editor", namespaces=["a", "default"])
    assert (await both.create())["namespace"] == "default"
    assert (await both.within("a").create())["namespace"] == "a"
    refused = await both.within("b").get("/api/tasks")
    assert refused.status == 403
    assert (await (await closed.key()).within("nowhere").get("/api/tasks")).status == 404
    assert (await (await closed.key("viewer")).within("a\x7f é").get("/api/tasks")).status == 404


async def test_namespaces_are_made_seen_bounded_and_deleted(closed: Closed) -> None:
    admin = await closed.key()
    made = await admin.post("/api/namespaces", {"name": "team", "max_pending": 5})
    assert (made.status, made.json["max_pending"]) == (201, 5), made.body
    assert (await admin.post("/api/namespaces", {"name": "team"})).status == 409
    assert (await admin.post("/api/namespaces", {"name": "Team!"})).status == 400
    changed = await admin.request("PATCH", "/api/namespaces/team", {"max_tasks": 1, "max_pending": None})
    assert (changed.json["max_pending"], changed.json["max_tasks"]) == (None, 1)
    assert (await admin.request("PATCH", "/api/namespaces/team", {"max_tasks": 0})).status == 400
    assert (await admin.request("PATCH", "/api/namespaces/nowhere", {"max_tasks": 1})).status == 404
    inside = await closed.key("admin", namespaces=["team"])
    assert [n["name"] for n in (await inside.get("/api/namespaces")).json["items"]] == ["team"]
    assert (await inside.get("/api/namespaces/default")).status == 404
    assert (await inside.post("/api/namespaces", {"name": "more"})).status == 403
    task = await inside.create()
    assert (await admin.request("DELETE", "/api/namespaces/team")).json["code"] == "namespace_in_use"
    await inside.post(f"/api/tasks/{task['id']}/cancel")
    assert (await admin.request("DELETE", "/api/namespaces/team")).status == 204
    assert (await inside.get("/api/tasks")).status == 404
    assert (await admin.post("/api/namespaces", {"name": "team"})).status == 409
    assert (await admin.request("DELETE", "/api/namespaces/default")).status == 409


async def test_a_namespace_takes_no_more_than_its_quotas(closed: Closed) -> None:
    await closed.namespace("a", max_pending=2, max_tasks=1)
    await closed.namespace("b", submit_rate=0.5)
    mine, other = await closed.key("editor", namespaces=["a"]), await closed.key("editor", namespaces=["b"])
    first = await mine.create()
    await mine.create()
    body = {"name": "x", "command": "true"}
    refused = await mine.post("/api/tasks", body)
    assert (refused.status, refused.json["type"]) == (503, "urn:dts:problem:overloaded")
    assert "the namespace a" in refused.json["detail"]
    await mine.post(f"/api/tasks/{first['id']}/cancel")
    await until(mine.create, 30, "room again")

    batch = await other.post("/api/tasks/batch", [body] * 20)
    assert batch.status == 201
    hurried = await other.post("/api/tasks", body)
    assert (hurried.status, int(hurried.headers["retry-after"]) >= 1) == (429, True)

    assert (await mine.post("/api/tasks", {**body, "schedule": "@daily"})).status in (201, 503)
    recurring = [{**body, "name": f"r{n}", "schedule": "@daily"} for n in range(2)]
    await closed.namespace("c", max_tasks=1)
    third = await closed.key("editor", namespaces=["c"])
    over = await third.post("/api/tasks/batch", recurring)
    assert (over.status, over.json["code"]) == (409, "quota")
    assert (await third.post("/api/tasks", recurring[0])).status == 201
    assert (await third.post("/api/tasks", recurring[1])).status == 409
    text = (await (await closed.key()).get("/metrics")).body.decode()
    assert 'dts_runs_refused_total{bound="namespace",namespace="a"}' in text
    assert 'dts_runs_refused_total{bound="rate",namespace="b"} 1' in text


@pytest.mark.parametrize("schedule", [None, "@daily"])
async def test_a_workflow_counts_as_a_recurring_task(closed: Closed, schedule: str | None) -> None:
    await closed.namespace("a", max_tasks=1)
    editor = await closed.key("editor", namespaces=["a"])
    workflows = [{"name": name, "tasks": [{"name": "x", "command": "true"}], "schedule": schedule} for name in "vw"]
    assert (await editor.post("/api/workflows", workflows[0])).status == 201
    over = await editor.post("/api/workflows", workflows[1])
    assert (over.status, over.json["code"]) == (409, "quota")
    assert (await editor.create("one-off"))["status"] == "pending"
    assert (await editor.request("PUT", "/api/workflows/v", workflows[0])).status == 200
    assert (await editor.request("DELETE", "/api/workflows/v")).status == 204
    assert (await editor.post("/api/workflows", workflows[1])).status == 201


async def test_who_may_edit_but_not_define_changes_when_a_command_runs_and_not_what(
    closed: Closed, worker: FakeWorker
) -> None:
    editor = await closed.key("editor")
    planner = await closed.key("operator", permissions=["task:write"])
    task = await editor.create("nightly", schedule="@daily")
    target = f"/api/tasks/{task['id']}"
    assert (await planner.request("PATCH", target, {"schedule": "@hourly"})).json["schedule"] == "@hourly"
    assert (await planner.post(f"{target}/trigger")).status == 201
    for patch in ({"command": "id"}, {"env": {"PATH": "/tmp"}}, {"user": "root"}, {"stdin": "x"}):
        refused = await planner.request("PATCH", target, patch)
        assert (refused.status, refused.json["code"]) == (403, "command:define"), patch
    assert (await planner.post("/api/tasks", {"name": "x", "command": "id"})).status == 403
    dead = await worker.claim((await editor.create("dies"))["last_run"]["id"])
    await worker.end(dead, "dead_letter", reason="exit:1")
    for edits, status in (({"command": "id"}, 403), ({"timeout": 5}, 200)):
        assert (await planner.post("/api/dead-letter/replay", {"edits": edits})).status == status
