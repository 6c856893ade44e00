from __future__ import annotations

import re

import anyio.to_thread
import jsonschema_rs
import msgspec
import openapi_spec_validator

from scheduler.api.openapi import document
from scheduler.api.routes import ROUTES
from scheduler.api.settings import ApiSettings
from scheduler.store import migrate
from scheduler.store.database import Database
from scheduler.wire.health import DeepHealth, Readiness
from tests.roles.api.support import Client, FakeWorker, running_api
from tests.support import ServerHandle, until


async def test_live_asks_nobody_and_ready_says_whether_work_would_also_run(api: Client, worker: FakeWorker) -> None:
    assert (await api.get("/livez")).json == {"status": "ok"}
    ready = await api.get("/health/ready")
    assert ready.status == 200
    assert msgspec.convert(ready.json, Readiness) == Readiness(
        status="ok", database=True, schema=True, leader=False, workers=1
    )
    assert worker
    api.context.stopping.set()
    assert (await api.get("/readyz")).json["status"] == "stopping"
    assert (await api.get("/health/live")).status == 200


async def test_deep_health_names_the_leader_and_how_long_each_dependency_took(api: Client) -> None:
    async with api.context.database.session() as connection:
        await connection.execute(
            "UPDATE leadership SET epoch = 3, holder = gen_random_uuid(), host = 'h', pid = 7, renewed_at = dts_now()"
        )
    answer = await api.get("/health/deep")
    health = msgspec.convert(answer.json, DeepHealth)
    assert health.leader is not None
    assert (health.leader.epoch, health.leader.host, health.leader.pid) == (3, "h", 7)
    assert all(d.ok and d.seconds is not None for d in health.dependencies.values())
    assert (health.status, health.workers) == ("degraded", 0)
    assert (await api.get("/readyz")).json["leader"] is True


async def test_metrics_count_by_route_and_never_by_path(api: Client) -> None:
    await api.get("/api/tasks/0190a5c0-0000-7000-8000-000000000000")
    await api.get("/no/such/path")
    text = (await api.get("/metrics")).body.decode()
    assert 'dts_http_requests_total{method="GET",route="/api/tasks/{id}",status="404"} 1' in text
    assert 'route="(none)"' in text
    assert "0190a5c0" not in text
    assert "no/such" not in text


async def test_head_has_the_headers_of_get_and_no_body(api: Client) -> None:
    answer = await api.request("HEAD", "/health/live")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(b'{"status":"ok"}'))


async def test_the_openapi_document_is_valid_and_served(api: Client) -> None:
    served = (await api.get("/openapi.json")).json
    assert served == msgspec.json.decode(msgspec.json.encode(document(ROUTES)))
    openapi_spec_validator.validate(served)


def test_every_route_is_documented_with_its_statuses() -> None:
    paths = document(ROUTES)["paths"]
    for route in ROUTES:
        operation = paths[route.path][route.method.lower()]
        documented = set(operation["responses"])
        assert {str(s) for s in (*route.responses, *route.errors)} <= documented
        assert operation["description"]
        if "{id}" in route.path:
            assert "404" in documented


def test_every_operation_has_examples_in_the_shape_that_it_documents() -> None:
    served = msgspec.json.decode(msgspec.json.encode(document(ROUTES)))
    for path, operations in served["paths"].items():
        for operation in operations.values():
            contents = [
                answer.get("content", {}) for status, answer in operation["responses"].items() if status < "400"
            ]
            contents.append(operation.get("requestBody", {}).get("content", {}))
            for media, content in ((m, c) for one in contents for m, c in one.items() if "problem" not in m):
                schema = {**content["schema"], "components": served["components"]}
                assert jsonschema_rs.is_valid(schema, content["example"]), (path, media, content["example"])


async def test_the_docs_come_from_the_package_and_ask_no_other_host(api: Client) -> None:
    page = await api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    files = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert sorted(set(files)) == ["docs/page.css", "docs/page.js", "openapi.json"]
    for file in files:
        answer = await api.get(f"/{file}")
        assert answer.status == 200
    script = (await api.get("/docs/page.js")).body
    assert b"innerHTML" not in script


async def test_while_the_database_is_away_a_submit_is_told_to_come_back(
    postgres_server: ServerHandle, redis_url: str
) -> None:
    database = await Database.connect(postgres_server.url, name="test", min_size=1, max_size=4)
    try:
        await migrate.up(database)
        async with running_api(database, redis_url) as api:
            await api.create()
            async with database.session() as connection:
                await connection.execute("CHECKPOINT")  # test servers do not wait for the disk at each commit
            await anyio.to_thread.run_sync(postgres_server.kill)
            for method, target, body in (
                ("POST", "/api/tasks", {"name": "a", "command": "true"}),
                ("POST", "/api/tasks/batch", [{"name": "a", "command": "true"}]),
                ("GET", "/api/tasks", None),
            ):
                answer = await api.request(method, target, body)
                assert (answer.status, answer.json["type"]) == (503, "urn:dts:problem:unavailable"), target
                assert answer.headers["retry-after"]
            assert (await api.get("/health/ready")).status == 503
            assert (await api.get("/health/live")).status == 200
            await anyio.to_thread.run_sync(postgres_server.start)
            await until(api.create, what="a submit")
    finally:
        await database.close()


async def test_what_takes_the_database_too_long_is_said_to(
    database: Database, database_url: str, redis_url: str
) -> None:
    impatient = await Database.connect(database_url, name="impatient", statement_timeout=0.2)
    try:
        async with running_api(impatient, redis_url) as api, database.transaction() as other:
            await other.target.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
            answer = await api.get("/api/runs")
            assert (answer.status, answer.json["type"]) == (503, "urn:dts:problem:overloaded")
            assert "too long" in answer.json["detail"]
            assert int(answer.headers["retry-after"]) > 0
    finally:
        await impatient.close()


async def test_while_redis_is_away_submits_are_accepted(database: Database, redis_server: ServerHandle) -> None:
    async with running_api(database, redis_server.url) as api:
        await api.context.broker.mark_open("default")
        assert (await api.create())["status"] == "queued"
        await anyio.to_thread.run_sync(redis_server.kill)
        for _ in range(3):
            await api.create()
        await until(lambda: not api.context.broker.available)
        assert (await api.create())["status"] == "pending"
        deep = (await api.get("/health/deep")).json
        assert deep["dependencies"]["redis"]["ok"] is False
        await anyio.to_thread.run_sync(redis_server.start)

        async def straight() -> bool:
            await api.context.broker.mark_open("default")
            return bool((await api.create())["status"] == "queued")

        await until(straight, what="a task that goes straight to its lane again")


async def test_beyond_max_pending_nothing_is_taken(database: Database, redis_url: str) -> None:
    async with running_api(database, redis_url, ApiSettings(development=True, max_pending=3)) as api:
        task = await api.create()
        await api.create()
        refused = await api.post("/api/tasks/batch", [{"name": "a", "command": "true"}] * 2)
        assert (refused.status, refused.json["type"]) == (503, "urn:dts:problem:overloaded")
        assert int(refused.headers["retry-after"]) > 0
        await api.create()
        assert (await api.post("/api/tasks", {"name": "a", "command": "true"})).status == 503
        await api.post(f"/api/tasks/{task['id']}/cancel")
        await until(api.create, 30, what="room again")
