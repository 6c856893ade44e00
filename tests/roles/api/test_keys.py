"""API keys: who may do what with one, and how one that does not hold is refused."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from scheduler.api import credentials
from scheduler.api.failures import FORGOTTEN_AFTER, FREE, FREE_FOR_ADDRESS, LONGEST, Failures
from scheduler.domain import keys
from scheduler.domain.clock import SystemClock
from scheduler.domain.errors import TooMany
from scheduler.store.database import Database
from tests.roles.api.access_support import Caller, Closed, closed_api
from tests.roles.api.support import FakeWorker
from tests.support import until


async def test_a_key_is_shown_once_and_stored_as_a_hash(closed: Closed) -> None:
    admin = await closed.key()
    made = await admin.post("/api/keys", {"name": "ci", "role": "editor", "expires_in": "90d"})
    assert made.status == 201, made.body
    text = made.json["key"]
    assert keys.parse(text) is not None
    assert made.headers["cache-control"] == "no-store"
    assert (made.json["namespaces"], made.json["created_by"]) == (["default"], "key:admin  *")
    for answer in (await admin.get(made.headers["location"]), await admin.get("/api/keys")):
        assert answer.status == 200
        assert text.encode() not in answer.body
        assert b'"hash"' not in answer.body
    async with closed.api.context.database.session() as connection:
        stored = await connection.fetch("SELECT k::text AS row FROM api_keys k")
    assert not any(text.partition(".")[2] in row["row"] for row in stored)


async def test_the_actor_of_a_change_is_the_key_that_made_it(closed: Closed) -> None:
    editor = await closed.key("editor", name="deploy")
    task = await editor.create("nightly", schedule="@daily")
    async with closed.api.context.database.session() as connection:
        assert await connection.fetchval("SELECT created_by FROM tasks WHERE id = $1", task["id"]) == "key:deploy"


async def test_nobody_gives_a_key_what_they_do_not_hold(closed: Closed) -> None:
    await closed.namespace("a")
    await closed.namespace("b")
    manager = await closed.key("operator", permissions=["key:manage"], namespaces=["a"])
    for body, pointer in (
        ({"role": "editor"}, "/role"),
        ({"role": "admin"}, "/role"),
        ({"permissions": ["command:define"]}, "/permissions/0"),
        ({"role": "viewer", "namespaces": ["b"]}, "/namespaces"),
        ({"role": "viewer", "namespaces": ["*"]}, "/namespaces"),
        ({"role": "viewer", "namespaces": ["a", "nowhere"]}, "/namespaces"),
        ({}, "/role"),
    ):
        answer = await manager.post("/api/keys", {"name": "x", **body})
        assert (answer.status, pointer in answer.pointers) == (422, True), (body, answer.body)
    assert (await manager.post("/api/keys", {"name": "x", "role": "operator"})).json["namespaces"] == ["a"]
    again = await manager.post("/api/keys", {"name": "x", "role": "viewer"})
    assert (again.status, again.json["code"]) == (409, "name_taken")


async def test_keys_of_other_namespaces_are_neither_seen_nor_revoked(closed: Closed) -> None:
    await closed.namespace("a")
    manager = await closed.key("admin", namespaces=["a"])
    other = await closed.key("viewer", namespaces=["default"])
    everywhere = await closed.key("viewer")
    seen = (await manager.get("/api/keys")).json["items"]
    assert [key["namespaces"] for key in seen] == [["a"]]
    for foreign in (other, everywhere):
        parsed = keys.parse(foreign.key or "")
        assert parsed is not None
        assert (await manager.get(f"/api/keys/{parsed[0]}")).status == 404
        assert (await manager.request("DELETE", f"/api/keys/{parsed[0]}")).status == 404
        assert (await foreign.get("/api/tasks")).status == 200


async def test_a_revoked_key_is_refused_at_once_here_and_soon_elsewhere(
    closed: Closed, database: Database, redis_url: str
) -> None:
    admin = await closed.key()
    viewer = await closed.key("viewer")
    assert viewer.key is not None
    async with closed_api(database, redis_url) as elsewhere:
        there = Caller(elsewhere.api, viewer.key)
        assert (await there.get("/api/tasks")).status == 200
        assert (await viewer.get("/api/tasks")).status == 200
        identifier = viewer.key.removeprefix(keys.PREFIX).partition(".")[0]
        assert (await admin.request("DELETE", f"/api/keys/{identifier}")).status == 204
        refused = await viewer.get("/api/tasks")
        assert (refused.status, refused.json["detail"]) == (401, "this API key has been revoked")

        async def gone() -> bool:
            return (await there.get("/api/tasks")).status == 401

        await until(gone, credentials.REMEMBERED + 5, "the other process to refuse the key")
    assert (await admin.request("DELETE", f"/api/keys/{identifier}")).status == 404
    assert (await admin.get(f"/api/keys/{identifier}")).status == 404


async def test_a_key_expires(closed: Closed) -> None:
    clock = closed.api.context.clock
    assert isinstance(clock, SystemClock)
    key = await closed.key("viewer", expires_at=clock.now() + timedelta(hours=1))
    assert (await key.get("/api/tasks")).status == 200
    clock.offset = 3601
    closed.api.context.credentials.forget()
    refused = await key.get("/api/tasks")
    assert (refused.status, refused.json["detail"]) == (401, "this API key has expired")


@pytest.mark.parametrize(
    "expiry",
    [{"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "9999-12-31T23:59:59-01:00"}, {"expires_in": "soon"}],
)
async def test_an_expiry_that_means_nothing_is_refused(closed: Closed, expiry: dict[str, str]) -> None:
    admin = await closed.key()
    assert (await admin.post("/api/keys", {"name": "x", "role": "viewer", **expiry})).status == 422


async def test_the_answer_with_a_key_is_not_kept_for_an_idempotency_key(closed: Closed) -> None:
    admin = await closed.key()
    statuses = [
        (await admin.post("/api/keys", {"name": "x", "role": "viewer"}, headers={"idempotency-key": "k"})).status
        for _ in range(2)
    ]
    assert statuses == [201, 409]
    async with closed.api.context.database.session() as connection:
        kept = await connection.fetch("SELECT k::text AS row FROM request_keys k")
    assert not any(keys.PREFIX in row["row"] for row in kept)


async def test_use_of_a_key_is_written_down_now_and_then(closed: Closed) -> None:
    viewer = await closed.key("viewer")
    for _ in range(3):
        await viewer.get("/api/tasks")
    await closed.api.context.credentials.step()
    async with closed.api.context.database.session() as connection:
        assert await connection.fetchval("SELECT last_used_at > now() - interval '1 minute' FROM api_keys")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer dts_aaaaaaaaaaaaaaaa",
        "Bearer dts_aaaaaaaaaaaaaaaa." + "A" * 43,
        "Bearer dtr_AAAA.AAAA",
        "Bearer dtr_é.é",
        "Bearer a.b.c",
        "Bearer " + "x" * 100_000,
    ],
)
async def test_credentials_that_are_none_are_refused(closed: Closed, header: str) -> None:
    answer = await closed.api.get("/api/tasks", headers={"authorization": header})
    assert (answer.status, answer.json["type"]) == (401, "urn:dts:problem:unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_right_id_with_a_wrong_secret_is_refused_and_costs_waiting(closed: Closed) -> None:
    viewer = await closed.key("viewer")
    assert viewer.key is not None
    wrong = Caller(closed.api, viewer.key[:-1] + ("A" if viewer.key[-1] != "A" else "Q"))
    assert [(await wrong.get("/api/tasks")).status for _ in range(FREE)] == [401] * FREE
    refused = await wrong.get("/api/tasks")
    assert (refused.status, int(refused.headers["retry-after"]) > 0) == (429, True)


async def test_in_development_whoever_shows_nothing_may_do_everything_and_what_is_shown_must_hold(
    database: Database, redis_url: str
) -> None:
    async with closed_api(database, redis_url, development=True) as api:
        assert (await api.anonymous.get("/api/tasks")).status == 200
        viewer = await api.key("viewer")
        assert (await viewer.post("/api/tasks", {"name": "a", "command": "true"})).status == 403
        assert (await Caller(api.api, "dts_x.y").get("/api/tasks")).status == 401


async def test_metrics_are_guarded_unless_they_are_opened(closed: Closed, database: Database, redis_url: str) -> None:
    assert (await closed.anonymous.get("/metrics")).status == 401
    assert (await closed.anonymous.get("/health/deep")).status == 401
    assert (await (await closed.key(None, permissions=["metrics:read"])).get("/metrics")).status == 200
    async with closed_api(database, redis_url, open_to_all=frozenset({"metrics:read"})) as opened:
        assert (await opened.anonymous.get("/metrics")).status == 200
        assert (await opened.anonymous.get("/health/deep")).status == 401


class Now:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def waits(failures: Failures, address: str, subject: str) -> float:
    try:
        failures.check(address, subject)
    except TooMany as error:
        return error.retry_after
    return 0.0


def test_each_failure_doubles_the_wait_up_to_a_minute() -> None:
    failures = Failures(Now())
    seen = []
    for _ in range(FREE + 8):
        failures.failed("1.2.3.4", "key", ended=False)
        seen.append(waits(failures, "1.2.3.4", "key"))
    assert seen == [0.0] * (FREE - 1) + [1, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]
    assert waits(failures, "1.2.3.4", "other") == 0
    assert waits(failures, "1.2.3.5", "key") == 0


def test_an_address_that_tries_many_keys_waits_but_not_who_was_right_there_lately() -> None:
    now = Now()
    failures = Failures(now)
    failures.succeeded("1.2.3.4", "good")
    for number in range(FREE_FOR_ADDRESS + 3):
        failures.failed("1.2.3.4", f"key {number}", ended=False)
    assert waits(failures, "1.2.3.4", "new") > 0
    assert waits(failures, "1.2.3.4", "good") == 0
    failures.failed("1.2.3.4", "good", ended=True)
    assert waits(failures, "1.2.3.4", "good") > 0
    now.time += FORGOTTEN_AFTER + 1
    failures.failed("1.2.3.4", "new", ended=False)
    assert waits(failures, "1.2.3.4", "new") == 0


def test_one_ipv6_network_is_one_client_and_memory_is_bounded() -> None:
    failures = Failures(Now(), bound=50)
    for number in range(FREE_FOR_ADDRESS):
        failures.failed(f"2001:db8::{number:x}", str(number), ended=False)
    assert waits(failures, "2001:db8::ffff", "x") > 0
    assert waits(failures, "2001:db9::1", "x") == 0
    for number in range(500):
        failures.failed(f"10.0.{number // 250}.{number % 250}", "x", ended=False)
        failures.succeeded(f"10.0.{number // 250}.{number % 250}", "y")
    assert len(failures._records) <= 50
    assert len(failures._good) <= 50


async def test_a_stream_ends_when_the_credentials_hold_no_longer(closed: Closed, worker: FakeWorker) -> None:
    admin, viewer = await closed.key(), await closed.key("viewer")
    assert viewer.key is not None
    run = (await admin.create())["last_run"]["id"]
    await worker.claim(run)
    async with anyio.create_task_group() as group:
        answers: list[int] = []

        async def follow(target: str) -> None:
            answers.append((await viewer.get(target)).status)

        group.start_soon(follow, f"/api/runs/{run}/logs?follow=true")
        group.start_soon(follow, "/api/events/stream")
        await until(lambda: len(closed.api.context.credentials._followers) == 2, what="the streams")
        identifier = viewer.key.removeprefix(keys.PREFIX).partition(".")[0]
        await admin.request("DELETE", f"/api/keys/{identifier}")
        await admin.create()  # something to tell
        with anyio.fail_after(20):
            await until(lambda: answers == [200, 200], what="the end of both streams")
    assert not closed.api.context.credentials._followers
