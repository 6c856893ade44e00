"""Secrets over HTTP: values go in and never come out."""

from __future__ import annotations

from hashlib import sha256

from scheduler.api.settings import ApiSettings
from scheduler.store.database import Database
from tests.roles.api.access_support import Closed, closed_api
from tests.roles.api.support import MASTER_KEY, Client, MasterKeys, running_api

VALUE = "correct horse battery staple"
SECRET = {"name": "password", "value": VALUE}
TASK = {"name": "t", "command": "true", "env": {"PASSWORD": {"secret": "password"}}}


async def test_a_value_comes_out_nowhere(api: Client, database: Database) -> None:
    stored = await api.post("/api/secrets", SECRET, headers={"idempotency-key": "once"})
    assert (stored.status, stored.json["version"]) == (201, 1)
    task = await api.post("/api/tasks", TASK)
    answers = [
        stored,
        task,
        *[await api.get(t) for t in ("/api/secrets", "/api/audit", f"/api/tasks/{task.json['id']}")],
    ]
    answers += [
        await api.post("/api/secrets", {"name": "", "value": VALUE}),
        await api.post("/api/secrets", {"name": "x", "value": VALUE, "more": 1}),
        await api.post("/api/secrets", {"name": 7, "value": VALUE}),
    ]
    assert [answer.status for answer in answers] == [201, 201, 200, 200, 200, 400, 400, 400]
    assert all(VALUE.encode() not in answer.body for answer in answers)
    async with database.session() as connection:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in tables:
            for row in await connection.fetch(f'SELECT t::text AS text FROM "{table}" t'):
                for form in (VALUE, VALUE.encode().hex(), sha256(VALUE.encode()).hexdigest()):
                    assert form not in row["text"], table


async def test_a_value_stored_again_is_the_next_version(api: Client) -> None:
    versions = [(await api.post("/api/secrets", SECRET)).json["version"] for _ in range(3)]
    assert versions == [1, 2, 3]
    (listed,) = (await api.get("/api/secrets")).json["items"]
    assert (listed["name"], listed["version"]) == ("password", 3)


async def test_a_secret_that_has_changed_is_not_deleted_by_whoever_saw_it_before(api: Client) -> None:
    seen = await api.post("/api/secrets", SECRET)
    now = await api.post("/api/secrets", SECRET)
    path = "/api/secrets/password"
    refused = await api.request("DELETE", path, headers={"if-match": seen.headers["etag"]})
    assert (refused.status, refused.headers["etag"]) == (412, now.headers["etag"])
    assert (await api.request("DELETE", path, headers={"if-match": now.headers["etag"]})).status == 204
    assert (await api.request("DELETE", path, headers={"if-match": now.headers["etag"]})).status == 404


async def test_the_same_idempotency_key_with_another_value_is_refused(api: Client) -> None:
    headers = {"idempotency-key": "k"}
    assert (await api.post("/api/secrets", SECRET, headers=headers)).json["version"] == 1
    assert (await api.post("/api/secrets", SECRET, headers=headers)).json["version"] == 1
    assert (await api.post("/api/secrets", {**SECRET, "value": "another"}, headers=headers)).status == 422


async def test_a_task_that_names_a_secret_that_is_not_there_is_refused(api: Client) -> None:
    assert (await api.post("/api/tasks", TASK)).pointers == ["/env/PASSWORD/secret"]
    assert (await api.post("/api/tasks/batch", [TASK | {"env": {}}, TASK])).pointers == ["/1/env/PASSWORD/secret"]
    workflow = {"name": "w", "tasks": [TASK]}
    assert (await api.post("/api/workflows", workflow)).pointers == ["/tasks/0/env/PASSWORD/secret"]
    plain = await api.create("plain", schedule="@daily")
    patched = await api.request("PATCH", f"/api/tasks/{plain['id']}", {"env": TASK["env"]})
    assert (patched.status, patched.pointers) == (422, ["/env/PASSWORD/secret"])
    await api.post("/api/secrets", SECRET)
    assert (await api.post("/api/tasks", TASK)).status == 201
    assert (await api.request("PATCH", f"/api/tasks/{plain['id']}", {"env": TASK["env"]})).status == 200
    assert (await api.request("DELETE", "/api/secrets/password")).json["code"] == "in_use"
    assert (await api.request("DELETE", f"/api/tasks/{plain['id']}")).status == 204
    assert (await api.post("/api/workflows", workflow)).status == 201
    assert (await api.request("DELETE", "/api/secrets/password")).json["code"] == "in_use"
    assert (await api.request("DELETE", "/api/workflows/w")).status == 204
    assert (await api.request("DELETE", "/api/secrets/password")).status == 204
    assert (await api.request("DELETE", "/api/secrets/password")).status == 404


async def test_what_is_no_secret_is_refused(api: Client) -> None:
    for bad in ({"value": "abc"}, {"value": "    "}, {"value": "x" * 16_385}, {"value": "a\0bcd"}, {"name": "a/b"}):
        assert (await api.post("/api/secrets", SECRET | bad)).status in (400, 422), bad


async def test_without_a_master_key_nothing_is_stored(database: Database, redis_url: str) -> None:
    async with running_api(database, redis_url, ApiSettings(development=True)) as api:
        assert (await api.post("/api/secrets", SECRET)).json["code"] == "no_master_key"


async def test_a_namespace_has_its_own_secrets(database: Database, redis_url: str) -> None:
    async with closed_api(database, redis_url, master_keys=MasterKeys(MASTER_KEY)) as closed:
        await _separate(closed)


async def _separate(closed: Closed) -> None:
    await closed.namespace("a")
    await closed.namespace("b")
    a, b = await closed.key("admin", namespaces=["a"]), await closed.key("admin", namespaces=["b"])
    editor = await closed.key("editor", namespaces=["a"])
    assert (await a.post("/api/secrets", SECRET)).status == 201
    assert (await editor.post("/api/secrets", SECRET)).status == 403
    assert (await editor.post("/api/tasks", TASK)).status == 201
    assert (await b.get("/api/secrets")).json["items"] == []
    assert (await b.post("/api/tasks", TASK)).status == 422
    assert (await b.request("DELETE", "/api/secrets/password")).status == 404
