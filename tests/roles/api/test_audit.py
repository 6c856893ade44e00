"""The audit log over HTTP: every change leaves exactly one entry, in its own transaction, and refusals do too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from scheduler.api import auditing
from scheduler.api.denials import KINDS
from scheduler.api.openapi import document
from scheduler.api.routes import ROUTES
from scheduler.domain.access import ANONYMOUS
from tests.roles.api.access_support import Closed
from tests.roles.api.support import Answer, Client, FakeWorker
from tests.support.waiting import until

Do = Callable[[Client, FakeWorker], Awaitable[Answer]]
COMMAND = {"name": "once", "command": ["/bin/true"]}
NIGHTLY = {"name": "nightly", "command": "true", "schedule": "0 3 * * *"}


async def _entries(api: Client, query: str = "?namespace=*") -> list[Any]:
    answer = await api.get(f"/api/audit{query}")
    assert answer.status == 200, answer.body
    return list(answer.json["items"])


async def _on_task(api: Client, method: str, suffix: str, body: Any = None) -> Answer:
    task = await api.create(**NIGHTLY)
    return await api.request(method, f"/api/tasks/{task['id']}{suffix}", body)


async def _cancel_task(api: Client, _: FakeWorker) -> Answer:
    task = await api.create(delay=3600)
    return await api.post(f"/api/tasks/{task['id']}/cancel")


async def _on_cancelled(api: Client, target: str, body: Any) -> Answer:
    run = await api.run_of(await api.create(delay=3600))
    await api.post(f"/api/runs/{run['id']}/cancel")
    return await api.post(target.format(id=run["id"]), body)


async def _cancel_run(api: Client, _: FakeWorker) -> Answer:
    run = await api.run_of(await api.create(delay=3600))
    return await api.post(f"/api/runs/{run['id']}/cancel")


async def _put_checkpoint(api: Client, worker: FakeWorker) -> Answer:
    run = await api.run_of(await api.create())
    claim = await worker.claim(run["id"])
    target = f"/api/runs/{run['id']}/checkpoint?fence={claim.fence}"
    return await api.request("PUT", target, raw=b"x", headers={"content-type": "application/octet-stream"})


async def _dead_letters(api: Client, worker: FakeWorker, what: str) -> Answer:
    run = await api.run_of(await api.create())
    await worker.end(await worker.claim(run["id"]), "dead_letter", reason="exit:1")
    return await api.post(f"/api/dead-letter/{what}", {"limit": 5})


async def _calendar(api: Client, method: str) -> Answer:
    made = await api.post("/api/calendars", {"name": "holidays", "dates": ["2030-12-25"]})
    if method == "POST":
        return made
    return await api.request(method, "/api/calendars/holidays", {"dates": ["2030-01-01"]} if method == "PUT" else None)


async def _queue(api: Client, what: str) -> Answer:
    await api.create()
    return await api.post(f"/api/queues/default/{what}")


async def _namespace(api: Client, method: str) -> Answer:
    made = await api.post("/api/namespaces", {"name": "team"})
    if method == "POST":
        return made
    return await api.request(method, "/api/namespaces/team", {"max_tasks": 3} if method == "PATCH" else None)


async def _key(api: Client, method: str) -> Answer:
    made = await api.post("/api/keys", {"name": "ci", "role": "viewer"})
    return made if method == "POST" else await api.request(method, f"/api/keys/{made.json['id']}")


async def _secret(api: Client, method: str) -> Answer:
    stored = await api.post("/api/secrets", {"name": "password", "value": "correct horse"})
    return stored if method == "POST" else await api.request(method, "/api/secrets/password")


WORKFLOW = {"name": "etl", "tasks": [{"name": "extract", "command": "true"}]}


async def _workflow(api: Client, method: str) -> Answer:
    made = await api.post("/api/workflows", WORKFLOW)
    if method == "POST":
        return made
    return await api.request(
        method, "/api/workflows/etl", {**WORKFLOW, "timezone": "Europe/Berlin"} if method == "PUT" else None
    )


async def _workflow_run(api: Client, cancel: bool) -> Answer:
    await _workflow(api, "POST")
    started = await api.post("/api/workflows/etl/runs", {})
    return await api.post(f"/api/workflow-runs/{started.json['id']}/cancel") if cancel else started


CHANGES: Mapping[str, Do] = {
    "create_task": lambda api, _: api.post("/api/tasks", COMMAND),
    "create_batch": lambda api, _: api.post("/api/tasks/batch", [COMMAND, NIGHTLY]),
    "replace_task": lambda api, _: _on_task(api, "PUT", "", {**NIGHTLY, "priority": 9}),
    "patch_task": lambda api, _: _on_task(api, "PATCH", "", {"priority": 9}),
    "delete_task": lambda api, _: _on_task(api, "DELETE", ""),
    "trigger_task": lambda api, _: _on_task(api, "POST", "/trigger"),
    "backfill_task": lambda api, _: _on_task(
        api, "POST", "/backfill", {"from": "2020-01-01T00:00:00Z", "to": "2020-01-03T00:00:00Z"}
    ),
    "cancel_task": _cancel_task,
    "pause_task": lambda api, _: _on_task(api, "POST", "/pause"),
    "resume_task": lambda api, _: _on_task(api, "POST", "/resume"),
    "cancel_runs": lambda api, _: _on_cancelled(api, "/api/runs/cancel", {"queue": "default"}),
    "retry_runs": lambda api, _: _on_cancelled(api, "/api/runs/retry", {"state": "cancelled"}),
    "cancel_run": _cancel_run,
    "retry_run": lambda api, _: _on_cancelled(api, "/api/runs/{id}/retry", None),
    "put_checkpoint": _put_checkpoint,
    "create_calendar": lambda api, _: _calendar(api, "POST"),
    "put_calendar": lambda api, _: _calendar(api, "PUT"),
    "delete_calendar": lambda api, _: _calendar(api, "DELETE"),
    "store_secret": lambda api, _: _secret(api, "POST"),
    "delete_secret": lambda api, _: _secret(api, "DELETE"),
    "create_workflow": lambda api, _: _workflow(api, "POST"),
    "replace_workflow": lambda api, _: _workflow(api, "PUT"),
    "delete_workflow": lambda api, _: _workflow(api, "DELETE"),
    "start_workflow": lambda api, _: _workflow_run(api, cancel=False),
    "cancel_workflow_run": lambda api, _: _workflow_run(api, cancel=True),
    "replay_dead_letters": lambda api, worker: _dead_letters(api, worker, "replay"),
    "discard_dead_letters": lambda api, worker: _dead_letters(api, worker, "discard"),
    "drain_worker": lambda api, worker: api.post(f"/api/workers/{worker.id}/drain"),
    "publish_event": lambda api, _: api.post("/api/events/built", {"version": 1}),
    "pause_queue": lambda api, _: _queue(api, "pause"),
    "resume_queue": lambda api, _: _queue(api, "resume"),
    "set_log_level": lambda api, _: api.request("PUT", "/api/log-level", {"level": "warning"}),
    "create_key": lambda api, _: _key(api, "POST"),
    "revoke_key": lambda api, _: _key(api, "DELETE"),
    "create_namespace": lambda api, _: _namespace(api, "POST"),
    "change_namespace": lambda api, _: _namespace(api, "PATCH"),
    "delete_namespace": lambda api, _: _namespace(api, "DELETE"),
}
"""How to make each change happen."""

NOTHING_LEFT = {"cancel_runs"}  # of what the example makes: it is the one that a bulk request finds already done


PLACED = {
    operation["operationId"]
    for path in document(ROUTES)["paths"].values()
    for operation in path.values()
    if "Location" in operation["responses"].get("201", {"headers": {}})["headers"]
}
"""What says where that is which it has made."""

OF_MANY = {
    "create_batch",
    "cancel_runs",
    "retry_runs",
    "replay_dead_letters",
    "discard_dead_letters",
}

NEEDS_A_LEADER = {"rerun_workflow_run"}  # before there is anything to do again


def test_every_route_that_changes_something_is_tried_here() -> None:
    mutating = {route.operation: route for route in ROUTES if route.mutates}
    assert CHANGES.keys() | NEEDS_A_LEADER == mutating.keys()
    assert all(mutating[operation].audit == "around" for operation in NEEDS_A_LEADER)


@pytest.mark.parametrize("operation", sorted(CHANGES))
async def test_a_change_leaves_one_entry_that_says_who_did_what(
    api: Client, worker: FakeWorker, operation: str
) -> None:
    if operation in NOTHING_LEFT:
        await api.create(delay=3600)
    done = await CHANGES[operation](api, worker)
    assert done.status in range(200, 300), done.body
    assert ("location" in done.headers) == (operation in PLACED)
    newest, *_ = entries = await _entries(api)
    assert newest["action"] == operation
    assert newest["request_id"] == done.headers["x-request-id"]
    assert (newest["actor"], newest["status"], newest["namespace"]) == ("anonymous", done.status, "default")
    assert newest["count"] == (2 if operation in ("create_batch", "backfill_task") else 1)
    assert (newest["object"] is None) == (operation in OF_MANY)
    assert [entry["request_id"] for entry in entries].count(newest["request_id"]) == 1


async def test_an_entry_bears_the_object_and_its_versions(api: Client) -> None:
    task = await api.create(**NIGHTLY)
    await api.request("PATCH", f"/api/tasks/{task['id']}", {"priority": 9})
    changed, created = await _entries(api, f"?object={task['id']}")
    assert (created["version_before"], created["version_after"]) == (None, 1)
    assert (changed["version_before"], changed["version_after"]) == (1, 2)


EDITS: Mapping[str, tuple[int | None, int | None]] = {
    "replace_task": (1, 2),
    "patch_task": (1, 2),
    "delete_task": (1, None),
    "pause_task": (1, 1),
    "resume_task": (1, 1),
    "cancel_run": (1, 2),
    "retry_run": (2, 3),
    "create_calendar": (None, 1),
    "put_calendar": (1, 2),
    "delete_calendar": (1, None),
    "store_secret": (None, 1),
    "delete_secret": (1, None),
    "create_workflow": (None, 1),
    "replace_workflow": (1, 2),
    "delete_workflow": (1, None),
}
"""What has versions, and which they are before and after."""


@pytest.mark.parametrize("operation", EDITS)
async def test_an_entry_bears_the_versions_of_what_has_some(api: Client, worker: FakeWorker, operation: str) -> None:
    await CHANGES[operation](api, worker)
    newest, *_ = await _entries(api)
    assert (newest["version_before"], newest["version_after"]) == EDITS[operation]


async def test_an_edit_that_changes_nothing_is_logged_as_one(api: Client) -> None:
    task = await api.create(**NIGHTLY)
    assert (await api.request("PUT", f"/api/tasks/{task['id']}", NIGHTLY)).status == 200
    newest, *_ = await _entries(api)
    assert (newest["version_before"], newest["version_after"]) == (1, 1)


@pytest.mark.parametrize("kind", ["workflows", "calendars"])
async def test_what_is_created_under_a_name_says_where_it_is(api: Client, kind: str) -> None:
    name = "büro: ½ day?"
    body = {"tasks": WORKFLOW["tasks"]} if kind == "workflows" else {"dates": ["2030-12-25"]}
    made = await api.post(f"/api/{kind}", {"name": name, **body})
    assert made.status == 201, made.body
    assert (await api.get(made.headers["location"])).json == made.json
    newest, *_ = await _entries(api)
    assert newest["object"] == name


async def test_the_log_is_read_page_by_page_and_by_filter(api: Client) -> None:
    for _ in range(3):
        await api.create()
    await api.create(**NIGHTLY)
    first = (await api.get("/api/audit?limit=3&action=create_task")).json
    rest = (await api.get(f"/api/audit?limit=3&action=create_task&cursor={first['next_cursor']}")).json
    assert [len(first["items"]), len(rest["items"])] == [3, 1]
    assert await _entries(api, "?actor=nobody") == []
    assert (await api.get("/api/audit?namespace=other")).pointers == ["?namespace"]


@pytest.mark.parametrize("operation", ["pause_task", "create_namespace", "create_key"])
async def test_what_cannot_be_logged_does_not_happen(
    api: Client, worker: FakeWorker, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the log is away")

    before = {path: (await api.get(path)).json for path in ("/api/namespaces", "/api/keys")}
    task = await api.create(**NIGHTLY)
    monkeypatch.setattr(auditing, "write_audit", fail)
    if operation == "pause_task":
        assert (await api.post(f"/api/tasks/{task['id']}/pause")).status == 500
    else:
        assert (await CHANGES[operation](api, worker)).status == 500
    assert (await api.get(f"/api/tasks/{task['id']}")).json["status"] == "scheduled"
    assert {path: (await api.get(path)).json for path in before} == before


async def test_what_is_refused_or_taken_back_leaves_no_entry(api: Client) -> None:
    await api.create(**NIGHTLY)
    count = len(await _entries(api))
    assert (await api.post("/api/tasks", NIGHTLY)).status == 409
    assert (await api.post("/api/tasks/batch", [COMMAND, NIGHTLY])).status == 409
    assert (await api.post("/api/tasks/batch", [COMMAND, {"name": "x"}])).status == 400
    assert (await api.post(f"/api/runs/{'0' * 8}-0000-7000-8000-{'0' * 12}/cancel")).status == 404
    assert len(await _entries(api)) == count


async def test_a_repeated_request_is_logged_once(api: Client) -> None:
    for target, body in (("/api/tasks", COMMAND), ("/api/namespaces", {"name": "team"})):
        count = len(await _entries(api))
        for _ in range(2):
            assert (await api.post(target, body, headers={"idempotency-key": target})).status == 201
        assert len(await _entries(api)) == count + 1


async def test_refusals_are_logged_with_their_count_and_within_bounds(closed: Closed) -> None:
    admin, viewer = await closed.key("admin"), await closed.key("viewer")
    for _ in range(5):
        assert (await closed.anonymous.get("/api/tasks")).status == 401
        assert (await viewer.post("/api/tasks", COMMAND)).status == 403

    async def logged() -> bool:
        entries = (await admin.get("/api/audit?namespace=*&denied=true")).json["items"]
        return {(e["actor"], e["action"], e["status"]) for e in entries} >= {
            ("anonymous", "list_tasks", 401),
            ("key:viewer  *", "create_task", 403),
        }

    await until(logged)
    denials = closed.api.context.denials
    for number in range(10 * KINDS):
        scope = {"client": (f"10.0.{number // 256}.{number % 256}", 1)}
        denials.note(ROUTES[0], scope, ANONYMOUS, None, 401, "r")

    async def bounded() -> bool:
        entries = (await admin.get("/api/audit?namespace=*&denied=true&limit=1000")).json["items"]
        assert len(entries) <= 2 * KINDS + 2
        return any(entry["actor"] == "(others)" for entry in entries)

    await until(bounded)


async def test_nobody_reads_the_log_of_another_namespace(closed: Closed) -> None:
    await closed.namespace("a")
    admin = await closed.key("admin", namespaces=["a"])
    root = await closed.key("admin")
    await root.create()
    mine = await admin.create()
    entries = (await admin.get("/api/audit")).json["items"]
    assert {entry["namespace"] for entry in entries} == {"a"}
    assert [entry["object"] for entry in entries] == [mine["id"]]
    assert (await admin.get("/api/audit?namespace=*")).status == 403
