"""`Idempotency-Key`, and `idempotency_key` of a task: what is sent again is answered again, and done once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest

from scheduler.api.settings import ApiSettings
from scheduler.domain.clock import SystemClock
from scheduler.domain.lane import lane_of
from scheduler.store.database import Database, StoreUnavailable
from scheduler.store.request_keys import keep
from tests.roles.api.support import Client, FakeWorker, running_api
from tests.support import until
from tests.support.lanes import lane_state
from tests.support.locks import waiting_for_locks
from tests.support.rows import count

KEY = {"idempotency-key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
BODY = {"name": "a", "command": ["/bin/true"]}


async def test_a_request_sent_again_gets_the_same_answer_and_is_done_once(api: Client, database: Database) -> None:
    first = await api.post("/api/tasks", BODY, headers=KEY)
    again = await api.post("/api/tasks", BODY, headers=KEY)
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["etag"] == first.headers["etag"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await count(database, "runs") == 1


async def test_every_kind_of_post_is_done_once(api: Client, database: Database, worker: FakeWorker) -> None:
    recurring = await api.create("r", schedule="@hourly", overlap="allow_all")
    ended = await api.run_of(await api.create("ended"))
    await worker.end(await worker.claim(ended["id"]), "failed")
    requests: list[tuple[str, Any]] = [
        ("/api/tasks/batch", [{**BODY, "depends_on": [{"task": "b"}]}, {**BODY, "name": "b"}]),
        (f"/api/tasks/{recurring['id']}/trigger", None),
        (f"/api/runs/{ended['id']}/retry", None),
        ("/api/dead-letter/replay", {"queue": "none"}),
        ("/api/queues/q/pause", None),
    ]
    for number, (target, body) in enumerate(requests):
        headers = {"idempotency-key": f"k{number}"}
        first = await api.post(target, body, headers=headers)
        runs = await count(database, "runs")
        again = await api.post(target, body, headers=headers)
        assert first.status in (200, 201), first.body
        assert (again.status, again.body) == (first.status, first.body)
        assert await count(database, "runs") == runs, target


async def test_a_run_made_under_a_key_is_offered_once_it_is_committed(api: Client) -> None:
    lane = lane_of("default", "default", "process", {})
    broker = api.context.broker
    await broker.mark_open(lane)
    assert (await api.post("/api/tasks", BODY, headers=KEY)).json["status"] == "queued"

    async def offered() -> bool:
        state = await lane_state(broker, lane)
        return sum(state.ready) + state.undelivered > 0

    await until(offered)


async def test_a_secret_that_is_shown_once_is_made_once_and_not_kept(api: Client, database: Database) -> None:
    body = {"name": "k", "role": "viewer"}
    made = await api.post("/api/keys", body, headers=KEY)
    again = await api.post("/api/keys", body, headers=KEY)
    assert (made.status, again.status, again.json["code"]) == (201, 409, "answer_not_kept")
    async with database.session() as connection:
        assert await connection.fetchval("SELECT body FROM request_keys") == b""


@pytest.mark.parametrize(
    ("target", "body", "word"),
    [
        ("/api/tasks", {**BODY, "name": "b"}, "with another body"),
        ("/api/tasks/batch", [BODY], "for POST /api/tasks/batch"),
    ],
)
async def test_a_key_used_for_another_request_is_refused(api: Client, target: str, body: Any, word: str) -> None:
    await api.post("/api/tasks", BODY, headers=KEY)
    refused = await api.post(target, body, headers=KEY)
    assert (refused.status, refused.json["code"]) == (422, "idempotency_key_reused")
    assert word in refused.json["detail"]


async def test_a_refused_request_keeps_nothing_and_may_be_mended_under_its_key(api: Client, database: Database) -> None:
    assert (await api.post("/api/tasks", {**BODY, "priority": 11}, headers=KEY)).status == 400
    assert (await api.post("/api/tasks", {**BODY, "schedule": "0 0 31 2 *"}, headers=KEY)).status == 422
    assert await count(database, "request_keys") == 0
    assert (await api.post("/api/tasks", BODY, headers=KEY)).status == 201


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256, "a\tb"])
async def test_what_is_no_key_is_refused(api: Client, key: str) -> None:
    assert (await api.post("/api/tasks", BODY, headers={"idempotency-key": key})).status == 400


async def test_requests_at_the_same_time_are_done_once_and_answered_alike(api: Client, database: Database) -> None:
    answers = []

    async def send() -> None:
        answers.append(await api.post("/api/tasks", BODY, headers=KEY))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(send)
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert await count(database, "runs") == 1


async def test_whoever_waits_too_long_for_the_same_key_is_told_to_come_back(
    api: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.request_keys._PATIENCE_MS", 50)
    async with database.transaction() as executor:
        await executor.fetchval("hold_request_key", "default", "anonymous", KEY["idempotency-key"], "", b"", 60.0)
        busy = await api.post("/api/tasks", BODY, headers=KEY)
    assert (busy.status, busy.json["code"], busy.headers["retry-after"]) == (409, "in_flight", "1")


async def test_a_crash_leaves_neither_the_task_nor_the_key(
    api: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise StoreUnavailable("the connection broke just before the commit")

    with monkeypatch.context() as patch:
        patch.setattr("scheduler.api.keyed.keep", crash)
        assert (await api.post("/api/tasks", BODY, headers=KEY)).status == 503
    assert (await count(database, "tasks"), await count(database, "request_keys")) == (0, 0)
    assert (await api.post("/api/tasks", BODY, headers=KEY)).status == 201
    assert await count(database, "tasks") == 1


async def test_a_key_may_be_used_again_once_it_has_expired(database: Database, redis_url: str) -> None:
    async with running_api(database, redis_url, ApiSettings(idempotency_ttl=0.001, development=True)) as api:
        first = await api.post("/api/tasks", BODY, headers=KEY)

        async def another() -> bool:
            return (await api.post("/api/tasks", BODY, headers=KEY)).json["id"] != first.json["id"]

        await until(another)


async def test_edges_of_a_task_made_under_a_key_are_found_by_an_end_that_waited_for_them(
    api: Client, database: Database, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream run ends while the transaction of the new task is open: it has to wait."""
    upstream = await api.create("up")
    claim = await worker.claim(upstream["last_run"]["id"])
    async with anyio.create_task_group() as group:

        async def end_meanwhile(*args: Any) -> None:
            group.start_soon(worker.end, claim)
            await until(lambda: waiting_for_locks(database))
            await keep(*args)

        monkeypatch.setattr("scheduler.api.keyed.keep", end_meanwhile)
        body = {**BODY, "depends_on": [{"task": upstream["id"]}]}
        created = await api.post("/api/tasks", body, headers=KEY)
    assert created.status == 201
    async with database.session() as connection:
        assert await connection.fetchval("SELECT count(*) FROM run_dependencies WHERE state = 'waiting'") == 0


# ------------------------------------------------------------------------------------------------ the field of a task

KEYED = {"name": "keyed", "command": "true", "idempotency_key": "k"}


async def _is_answered_again(api: Client, body: Any, first: Any, **kwargs: Any) -> None:
    assert first.status == 201, first.body
    again = await api.post("/api/tasks", body, **kwargs)
    assert (again.status, again.json["id"]) == (200, first.json["id"]), again.body


@pytest.mark.parametrize(
    ("names", "gone"),
    [
        ({"depends_on": [{"task": "nightly"}], "schedule": "@daily"}, "/api/tasks/{nightly}?cascade=cancel"),
        ({"calendars": ["holidays"]}, "/api/calendars/holidays"),
        ({"env": {"PASSWORD": {"secret": "password"}}}, "/api/secrets/password"),
    ],
)
async def test_a_task_sent_again_is_found_though_what_it_named_is_gone(
    api: Client, names: dict[str, Any], gone: str
) -> None:
    nightly = await api.create("nightly", schedule="@daily")
    await api.post("/api/calendars", {"name": "holidays", "dates": ["2030-12-25"]})
    await api.post("/api/secrets", {"name": "password", "value": "correct horse"})
    first = await api.post("/api/tasks", {**KEYED, **names})
    assert (await api.request("DELETE", gone.format(nightly=nightly["id"]))).status == 204
    await _is_answered_again(api, {**KEYED, **names}, first)


async def test_a_task_sent_again_is_found_though_what_it_waited_for_has_ended(api: Client, worker: FakeWorker) -> None:
    upstream = await api.create("up")
    body = {**KEYED, "depends_on": [{"task": "up"}]}
    first = await api.post("/api/tasks", body)
    await worker.end(await worker.claim(upstream["last_run"]["id"]))
    await _is_answered_again(api, body, first)


async def test_a_task_sent_again_is_found_though_there_is_no_room_for_another(api: Client) -> None:
    for bound, body, refused in (
        ({"max_tasks": 1}, {**KEYED, "schedule": "@daily"}, 409),
        ({"max_pending": 1}, {**KEYED, "delay": "1h"}, 503),
    ):
        (name,) = bound
        within = {"dts-namespace": name.replace("_", "-")}
        assert (await api.post("/api/namespaces", {"name": within["dts-namespace"], **bound})).status == 201
        first = await api.post("/api/tasks", body, headers=within)
        another = {**body, "name": "another", "idempotency_key": "another"}
        assert (await api.post("/api/tasks", another, headers=within)).status == refused
        await _is_answered_again(api, body, first, headers=within)


async def test_a_task_sent_again_is_found_though_its_time_has_passed(database: Database, redis_url: str) -> None:
    clock = SystemClock()
    ends_at = (clock.now() + timedelta(hours=1)).isoformat()
    async with running_api(database, redis_url, clock=clock) as api:
        body = {**KEYED, "schedule": "* * * * *", "ends_at": ends_at}
        first = await api.post("/api/tasks", body)
        clock.offset = 7200.0
        assert (await api.post("/api/tasks", {**body, "idempotency_key": "another"})).pointers == ["/ends_at"]
        await _is_answered_again(api, body, first)


@pytest.mark.parametrize("kind", [{}, {"schedule": "@daily"}])
async def test_the_key_of_a_task_that_was_deleted_is_free(api: Client, kind: dict[str, str]) -> None:
    body = {**KEYED, **kind}
    first = await api.post("/api/tasks", body)
    path = f"/api/tasks/{first.json['id']}"
    edited = await api.request("PUT", path, {**body, "idempotency_key": "unused", "priority": 9})
    assert edited.status == 200  # what stands in the definition now does not say under which key it was created
    assert (await api.request("DELETE", f"{path}?cascade=cancel")).status == 204
    second = await api.post("/api/tasks", {**body, "priority": 1})
    assert (second.status, second.json["id"] != first.json["id"]) == (201, True)
    await _is_answered_again(api, {**body, "priority": 1}, second)
    assert (await api.post("/api/tasks", body)).json["code"] == "idempotency_key_reused"


async def test_a_task_s_key_is_for_one_body_however_that_is_written(api: Client) -> None:
    body = {**KEYED, "timeout": "5m"}
    first = await api.post("/api/tasks", body)
    await _is_answered_again(api, {**KEYED, "timeout": 300}, first)
    other = await api.post("/api/tasks", {**KEYED, "timeout": 301})
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")
    wrong = {**KEYED, "schedule": "@daily", "ends_at": "2000-01-01T00:00:00Z", "timezone": "Mars/Olympus"}
    assert (await api.post("/api/tasks", wrong)).pointers == ["/timezone", "/ends_at"]
