"""What holds for every route: compressed bodies, rates, conditions, levels of the log."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import pytest
import structlog
import structlog.testing

from scheduler import telemetry
from scheduler.api.coding import takes_gzip
from scheduler.api.openapi import document
from scheduler.api.routes import ROUTES
from scheduler.api.settings import ApiSettings
from scheduler.store.database import Database
from tests.roles.api.support import Client, FakeWorker, running_api
from tests.support.rows import add_worker

BODY = {"name": "a", "command": ["/bin/true"]}
PACKED = {"content-type": "application/json", "content-encoding": "gzip"}


@pytest.fixture
async def strict(database: Database, redis_url: str) -> AsyncIterator[Client]:
    """An API that limits rates and wants conditions."""
    settings = ApiSettings(development=True, rate_limit=0.01, rate_burst=3, require_if_match=True, max_body=100_000)
    async with running_api(database, redis_url, settings) as client:
        yield client


async def test_a_compressed_body_is_a_body(api: Client) -> None:
    answer = await api.post("/api/tasks", raw=gzip.compress(msgspec.json.encode(BODY)), headers=PACKED)
    assert answer.status == 201
    many = gzip.compress(msgspec.json.encode([BODY] * 3000), compresslevel=0)  # long enough for a thread
    assert (await api.post("/api/tasks/batch", raw=many, headers=PACKED)).status == 201


async def test_a_bomb_is_unpacked_no_further_than_a_body_may_be_long(strict: Client) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    answer = await strict.post("/api/tasks", raw=bomb, headers=PACKED)
    assert (answer.status, answer.json["type"]) == (413, "urn:dts:problem:too-large")


@pytest.mark.parametrize(
    ("raw", "coding", "status"),
    [
        (b"no gzip", "gzip", 400),
        (gzip.compress(b'{"name": "a"}', mtime=0)[:-4], "gzip", 400),
        (gzip.compress(b"{}", mtime=0) + gzip.compress(b"{}", mtime=0), "gzip", 400),
        (zlib.compress(b"{}"), "deflate", 415),
        (b"{}", "gzip, gzip", 415),
        (msgspec.json.encode(BODY), "identity", 201),
    ],
)
async def test_a_coding_that_does_not_hold_is_refused(api: Client, raw: bytes, coding: str, status: int) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    answer = await api.post("/api/tasks", raw=raw, headers=headers)
    assert answer.status == status
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip"


async def test_a_long_answer_is_compressed_for_those_who_take_it(api: Client) -> None:
    await api.post("/api/tasks/batch", [BODY] * 20)
    plain = await api.get("/api/tasks")
    packed = await api.get("/api/tasks", headers={"accept-encoding": "br, gzip;q=0.5"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == len(packed.body) < len(plain.body) / 3
    assert gzip.decompress(packed.body) == plain.body
    short = await api.get("/livez", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in short.headers


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("GZIP;q=1", True),
        ("gzip;q=0", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("br", False),
        ("identity;q=1, gzip;q=0.001", True),
        ("gzip;;;", False),
    ],
)
def test_accept_encoding_is_read_as_it_is_meant(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted.encode()) is takes


async def test_who_asks_too_often_is_told_when_to_come_back(strict: Client) -> None:
    statuses = [(await strict.get("/api/tasks")).status for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    refused = await strict.get("/api/tasks")
    assert refused.json["type"] == "urn:dts:problem:too-many"
    assert 50 < int(refused.headers["retry-after"]) <= 100
    assert (await strict.get("/livez")).status == 200


async def test_where_conditions_are_required_an_edit_without_one_is_refused(strict: Client) -> None:
    task = await strict.create()
    refused = await strict.request("PATCH", f"/api/tasks/{task['id']}", {"priority": 9})
    assert refused.status == 428
    done = await strict.request("PATCH", f"/api/tasks/{task['id']}", {"priority": 9}, headers={"if-match": '"1"'})
    assert (done.status, done.json["priority"]) == (200, 9)


@pytest.mark.parametrize("kind", ["tasks", "workflows", "calendars", "secrets"])
async def test_where_conditions_are_required_nothing_that_has_a_version_is_deleted_without_one(
    strict: Client, kind: str
) -> None:
    path = f"/api/{kind}/0190b2a4-0000-7000-8000-000000000000"
    assert (await strict.request("DELETE", path)).status == 428
    assert (await strict.request("DELETE", path, headers={"if-match": "*"})).status == 404


async def test_a_run_that_has_changed_is_not_cancelled_by_whoever_saw_it_before(api: Client) -> None:
    run = await api.run_of(await api.create())
    target = f"/api/runs/{run['id']}/cancel"
    assert (await api.post(target, headers={"if-match": f'"{run["version"] + 1}"'})).status == 412
    assert (await api.post(target, headers={"if-match": f'"{run["version"]}"'})).status == 200
    assert (await api.post(f"/api/runs/{run['id']}/retry", headers={"if-match": '"1"'})).status == 412


async def test_the_level_of_the_log_is_changed_in_the_running_process(api: Client) -> None:
    try:
        assert (await api.request("PUT", "/api/log-level", {"level": "debug"})).json == {"level": "debug"}
        assert structlog.get_logger().bind().is_enabled_for(10)
        assert (await api.request("PUT", "/api/log-level", {"level": "loud"})).status == 400
    finally:
        telemetry.set_level("warning")


async def test_short_lists_have_pages_and_filters_too(api: Client, worker: FakeWorker, database: Database) -> None:
    await add_worker(database, state="draining")
    for name in ("b", "a", "c"):
        await api.post(f"/api/queues/{name}/pause")
    await api.post("/api/queues/c/resume")
    assert [q["name"] for q in (await api.get("/api/queues?paused=true")).json["items"]] == ["a", "b"]
    for path, count in (("/api/queues", 3), ("/api/workers", 2)):
        whole, cursor, walked = (await api.get(path)).json["items"], "", []
        while True:
            page = await api.get(f"{path}?limit=1{cursor}")
            walked += page.json["items"]
            if page.json["next_cursor"] is None:
                break
            assert 'rel="next"' in page.headers["link"]
            cursor = f"&cursor={page.json['next_cursor']}"
        assert len(walked) == count
        assert walked == whole
    live = (await api.get("/api/workers?state=live&queue=default")).json["items"]
    assert [w["id"] for w in live] == [str(worker.id)]
    assert (await api.get("/api/workers?queue=none")).json["items"] == []
    assert (await api.get("/api/workers?state=x")).pointers == ["?state"]
    assert (await api.get("/api/queues?cursor=x")).status == 400


WHOLE_LISTS = {
    "/api/queues": "INSERT INTO queues (namespace, name, updated_at, updated_by)"
    " SELECT 'default', n, now(), 'test' FROM generate_series(1, 101) AS n",
    "/api/namespaces": "INSERT INTO namespaces (name, created_by) SELECT n, 'test' FROM generate_series(1, 101) AS n",
    "/api/workers": "INSERT INTO workers (id, name, host, pid, queues, executors, containment, slots, version,"
    " state, registered_at) SELECT gen_random_uuid(), 'w', 'host', 1, '{default}', '{process}', 'session', 8, '0',"
    " 'live', now() FROM generate_series(1, 101)",
    "/api/runs/{id}/attempts": "INSERT INTO attempts (run_id, attempt, fence, worker_id, outcome, started_at,"
    " finished_at, task_version) SELECT runs.id, n, n, gen_random_uuid(), 'failed', now(), now(), 1"
    " FROM runs, generate_series(1, 101) AS n",
}
"""Path → what makes the list longer than a page of the others is by default."""


@pytest.mark.parametrize("path", ["/api/tasks", *WHOLE_LISTS])
async def test_a_list_holds_as_many_items_as_its_document_says(api: Client, database: Database, path: str) -> None:
    run = (await api.create())["last_run"]["id"]
    if path in WHOLE_LISTS:
        async with database.session() as connection:
            await connection.execute(WHOLE_LISTS[path])
    else:
        await api.post("/api/tasks/batch", [BODY] * 100)
    parameters = document(ROUTES)["paths"][path]["get"]["parameters"]
    (limit,) = (parameter["description"] for parameter in parameters if parameter["name"] == "limit")
    default = re.search(r"\(default (\d+)\)", limit)
    assert default is not None
    items = (await api.get(path.replace("{id}", run))).json["items"]
    assert min(101, len(items)) == min(101, int(default[1]))


async def test_a_page_below_any_name_links_to_the_next(api: Client) -> None:
    workflow = {"name": "tägl. ½ day?", "tasks": [{"name": "a", "command": "true"}], "overlap": "allow_all"}
    runs = (await api.post("/api/workflows", workflow)).headers["location"] + "/runs"
    started = [(await api.post(runs, {})).json["id"] for _ in range(2)]
    first = await api.get(f"{runs}?limit=1")
    second = await api.get(first.headers["link"].removeprefix("<").removesuffix('>; rel="next"'))
    assert [page.json["items"][0]["id"] for page in (second, first)] == started


async def test_fires_are_filtered_by_what_became_of_them(api: Client, database: Database) -> None:
    task = (await api.create("n", schedule="@hourly"))["id"]
    async with database.session() as connection:
        for hour, disposition in enumerate(("fired", "skipped:overlap", "skipped:calendar", "missed")):
            await connection.execute(
                "INSERT INTO fires (task_id, scheduled_for, disposition, decided_at, epoch)"
                " VALUES ($1, dts_now() - make_interval(hours => $2), $3, dts_now(), 1)",
                UUID(task),
                hour,
                disposition,
            )

    async def of(wanted: str) -> list[str]:
        items = (await api.get(f"/api/tasks/{task}/fires?disposition={wanted}")).json["items"]
        return [item["disposition"] for item in items]

    assert await of("skipped") == ["skipped:overlap", "skipped:calendar"]
    assert await of("skipped:overlap") == ["skipped:overlap"]
    assert await of("missed") == ["missed"]


async def test_what_is_logged_during_a_request_bears_its_id(api: Client) -> None:
    try:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await api.request("PUT", "/api/log-level", {"level": "warning"}, headers={"x-request-id": "abc"})
        assert [line["request_id"] for line in lines if line["event"] == "log level changed"] == ["abc"]
    finally:
        structlog.contextvars.clear_contextvars()
