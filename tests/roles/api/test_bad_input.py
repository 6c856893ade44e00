"""Whatever is sent, the answer is a precise refusal, nothing is half-done, and it is never a 500."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import anyio
import pytest

from scheduler.api.cursors import encode_cursor
from scheduler.api.settings import ApiSettings
from scheduler.store.database import Database
from tests.roles.api.support import Answer, Client, running_api
from tests.support import until
from tests.support.locks import waiting_for_locks

JSON = {"content-type": "application/json"}


def task(**fields: Any) -> dict[str, Any]:
    return {"name": "a", "command": "true", **fields}


async def nothing_stored(api: Client) -> bool:
    return not (await api.get("/api/tasks")).json["items"] and not (await api.get("/api/runs")).json["items"]


# Tables, not parameters: each parameter would get a database of its own.
SHAPES: list[tuple[bytes, list[str]]] = [
    (b"", []),
    (b"{", []),
    (b"nonsense", []),
    (b'{"name":"a","command":"true"} x', []),
    (b"\xff\xfe", []),
    (b'{"name":"\xff","command":"true"}', []),
    (b'{"name":"\\ud800","command":"true"}', []),
    (b'{"name":"a\x00","command":"true"}', []),
    (b'{"name":"a","command":"true","timeout":NaN}', []),
    (b"[]", [""]),
    (b"null", [""]),
    (b'"text"', [""]),
    (b'{"command":"true"}', ["/name"]),
    (b'{"name":"a"}', ["/command"]),
    (b'{"name":"","command":"true"}', ["/name"]),
    (b'{"name":"a","command":"true","nmae":1}', ["/nmae"]),
    (b'{"name":7,"command":"true"}', ["/name"]),
    (b'{"name":"a","command":["x",3]}', ["/command/1"]),
    (b'{"name":"a","command":"true","priority":10}', ["/priority"]),
    (b'{"name":"a","command":"true","priority":99999999999999999999999999999999999}', ["/priority"]),
    (b'{"name":"a","command":"true","timeout":1e999}', ["/timeout"]),
    (b'{"name":"a","command":"true","env":{"k":3}}', ["/env"]),
    (b'{"name":"a","command":"true","env":{"k":{"secret":"s","x":1}}}', ["/env"]),
    (b'{"name":"a","command":"true","retry":{"rules":[{"action":"explode"}]}}', ["/retry/rules/0/action"]),
    (b'{"name":"a","command":"true","depends_on":[{"task":"b","when":1}]}', ["/depends_on/0/when"]),
    (b'{"name":"a","command":"true","run_at":"tomorrow"}', ["/run_at"]),
    (b'{"name":"a","command":"true","run_at":"2030-01-01T00:00:00"}', ["/run_at"]),
    (b'{"name":"a","command":"true","umask":"0777\\n"}', ["/umask"]),
    (b"[" * 100_000, [""]),
    (b'{"name":"a","command":' + b"[" * 100_000, ["/command/0"]),
]
MEANINGS: list[tuple[dict[str, Any], str]] = [
    ({"command": []}, "/command"),
    ({"command": ""}, "/command"),
    ({"command": ["a\0b"]}, "/command/0"),
    ({"command": "a\0b"}, "/command"),
    ({"command": ["x" * 200_000]}, "/command"),
    ({"env": {"A": "b\0"}}, "/env/A"),
    ({"name": "a\0b"}, "/name"),
    ({"labels": {"k": "\0"}}, "/labels/k"),
    ({"schedule": "0 0 31 2 *"}, "/schedule"),
    ({"schedule": "every day"}, "/schedule"),
    ({"schedule": "0 0 * * *", "timezone": "Mars/Olympus"}, "/timezone"),
    ({"schedule": "0 0 * * *", "ends_at": "2020-01-01T00:00:00Z"}, "/ends_at"),
    ({"schedule": "0 0 * * *", "run_at": "2040-01-01T00:00:00Z"}, "/run_at"),
    ({"delay": "soon"}, "/delay"),
    ({"delay": -1}, "/delay"),
    ({"depends_on": [{"task": "nobody"}]}, "/depends_on/0/task"),
    ({"depends_on": [{"task": "0190a5c0-0000-7000-8000-000000000000"}]}, "/depends_on/0/task"),
    ({"depends_on": [{"task": "a"}]}, "/depends_on/0"),
    ({"workdir": "relative"}, "/workdir"),
    ({"command": "x" * 1_000_000}, "/command"),
    ({"command": ["x"] * 1_000_000}, "/command"),
]


async def test_what_has_not_the_documented_shape_is_a_400(api: Client) -> None:
    for raw, pointers in SHAPES:
        answer = await api.post("/api/tasks", raw=raw, headers=JSON)
        assert (answer.status, answer.pointers) == (400, pointers), (raw[:100], answer.body)
    assert await nothing_stored(api)


async def test_what_means_something_impossible_is_a_422(api: Client) -> None:
    for fields, pointer in MEANINGS:
        answer = await api.post("/api/tasks", task(**fields))
        assert answer.status == 422, (str(fields)[:100], answer.body)
        assert pointer in [p[: len(pointer)] for p in answer.pointers], (str(fields)[:100], answer.body)
    assert await nothing_stored(api)


async def test_of_a_repeated_key_the_last_counts(api: Client) -> None:
    answer = await api.post("/api/tasks", raw=b'{"name":"a","name":"b","command":"true"}', headers=JSON)
    assert answer.json["name"] == "b"


async def test_an_eleven_megabyte_body_is_too_large_whether_announced_or_not(api: Client) -> None:
    pieces = [b" " * 65536] * 176
    answer = await api.request("POST", "/api/tasks", pieces=pieces, headers=JSON)
    assert (answer.status, answer.json["type"]) == (413, "urn:dts:problem:too-large")
    answer = await api.post("/api/tasks/batch", raw=b" " * (11 * 1024 * 1024), headers=JSON)
    assert answer.status == 413
    assert await nothing_stored(api)


# Without a header that says that there is a body, as over HTTP/2.
SILENT = [
    ("POST", "/api/tasks"),
    ("POST", "/api/workflows/x/runs"),
    ("DELETE", "/api/tasks/x"),
    ("PUT", "/api/log-level"),
]


async def test_requests_whose_bodies_never_come_keep_nobody_from_the_database(api: Client) -> None:
    task = await api.create(schedule="@daily")
    target = f"/api/tasks/{task['id']}/trigger"
    async with anyio.create_task_group() as group:
        for method, path in [*SILENT, ("POST", target)]:
            for _ in range(20):  # more than there are connections
                group.start_soon(partial(api.request, method, path, pieces=[]))
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            assert (await api.post(target)).status == 201
        group.cancel_scope.cancel()


async def test_a_body_that_does_not_come_in_time_is_a_408(database: Database, redis_url: str) -> None:
    async with running_api(database, redis_url, ApiSettings(development=True, body_timeout=0.05)) as api:
        for method, path in SILENT:
            with anyio.fail_after(10):
                answer = await api.request(method, path, pieces=[])
            assert (answer.status, answer.json["type"]) == (408, "urn:dts:problem:too-slow"), path


async def test_a_batch_of_10_001_is_too_large_and_one_of_none_means_nothing(api: Client) -> None:
    answer = await api.post("/api/tasks/batch", [task()] * 10_001)
    assert answer.status == 413
    assert (await api.post("/api/tasks/batch", [])).status == 422
    assert await nothing_stored(api)


async def test_a_batch_points_at_the_task_that_is_wrong(api: Client) -> None:
    answer = await api.post("/api/tasks/batch", [task(), task(priority="high")])
    assert (answer.status, answer.pointers) == (400, ["/1/priority"])
    answer = await api.post("/api/tasks/batch", [task(), task(command="a\0")])
    assert (answer.status, answer.pointers) == (422, ["/1/command"])
    assert await nothing_stored(api)


async def test_a_cycle_is_refused_and_named(api: Client) -> None:
    batch = [
        task(name="a", depends_on=[{"task": "c"}]),
        task(name="b", depends_on=[{"task": "a"}]),
        task(name="c", depends_on=[{"task": "b"}]),
    ]
    answer = await api.post("/api/tasks/batch", batch)
    assert answer.status == 422
    assert "a → c → b → a" in answer.json["errors"][0]["detail"]
    assert await nothing_stored(api)


async def test_a_cycle_closed_by_an_edit_is_refused_and_named(api: Client) -> None:
    a = await api.create("a", schedule="@daily")
    await api.create("b", schedule="@daily", depends_on=[{"task": "a"}])
    answer = await api.request("PATCH", f"/api/tasks/{a['id']}", {"depends_on": [{"task": "b"}]})
    assert (answer.status, answer.pointers) == (422, ["/depends_on"])
    assert "b → a → b" in answer.json["errors"][0]["detail"]
    assert (await api.get(f"/api/tasks/{a['id']}")).json["version"] == 1


async def test_of_two_edits_that_close_a_cycle_together_one_is_refused(api: Client, database: Database) -> None:
    ids = {name: UUID((await api.create(name, schedule="@daily"))["id"]) for name in ("a", "b")}
    answers: list[Answer] = []

    async def make_depend(name: str, upstream: str) -> None:
        path = f"/api/tasks/{ids[name]}"
        answers.append(await api.request("PATCH", path, {"depends_on": [{"task": upstream}]}))

    async with anyio.create_task_group() as group, database.session() as connection, connection.transaction():
        await connection.execute("SELECT FROM tasks WHERE id = ANY($1) FOR UPDATE", list(ids.values()))
        group.start_soon(make_depend, "a", "b")
        group.start_soon(make_depend, "b", "a")

        async def both_wait() -> bool:
            return await waiting_for_locks(database) == 2

        await until(both_wait)
    taken, refused = sorted(answers, key=lambda answer: answer.status)
    assert (taken.status, refused.status, refused.pointers) == (200, 422, ["/depends_on"])
    assert refused.json["errors"][0]["detail"].count(" → ") == 2


async def test_an_ambiguous_name_is_refused(api: Client) -> None:
    await api.create("twin")
    await api.create("twin")
    answer = await api.post("/api/tasks", task(depends_on=[{"task": "twin"}]))
    assert (answer.status, answer.pointers) == (422, ["/depends_on/0/task"])


async def test_an_if_match_that_is_no_etag_is_a_400(api: Client) -> None:
    created = await api.create()
    for value in ('"x"', "3", "nonsense", '"1", "2"', '"99999999999999999999"'):
        answer = await api.request("DELETE", f"/api/tasks/{created['id']}", headers={"if-match": value})
        assert answer.status == 400, value


QUERIES = [
    ("limit=0", 422),
    ("limit=1001", 422),
    ("limit=many", 422),
    ("limit=99999999999999999999999999", 422),
    ("cursor=nonsense", 400),
    ("cursor=%00", 400),
    ("cursor=AAAA", 400),
    ("status=odd", 422),
    ("nmae=a", 400),
    ("name=%00", 400),
    ("name=%ff%fe", 200),
    ("name=a&tag=b", 200),
    ("status=unheard-of", 422),
]


async def test_a_query_that_means_nothing_is_refused(api: Client) -> None:
    for query, status in QUERIES:
        assert (await api.get(f"/api/tasks?{query}")).status == status, query


@pytest.mark.usefixtures("worker")
async def test_a_cursor_that_can_be_read_and_is_none_of_ours_is_refused(api: Client) -> None:
    task = await api.create("n", schedule="@hourly")
    fires = f"/api/tasks/{task['id']}/fires"
    forged: list[tuple[str, Any]] = [
        ("/api/workers", ["2026-01-01T00:00:00", task["id"]]),
        ("/api/workers", ["9999-12-31T23:59:59-01:00", task["id"]]),
        (fires, "2026-01-01T00:00:00"),
        (fires, "9999-12-31T23:59:59-01:00"),
        (fires, "0001-01-01T00:00:00+01:00"),
        ("/api/runs", task["id"].replace("-", "")),
        ("/api/secrets", b"a"),
        ("/api/audit", 1.5),
    ]
    for path, key in forged:
        answer = await api.get(f"{path}?cursor={encode_cursor(key)}")
        assert (answer.status, answer.pointers) == (400, ["?cursor"]), (path, key)
    lone_surrogate = base64.urlsafe_b64encode(b"\xa3\xed\xa0\x80").decode()
    assert (await api.get(f"/api/secrets?cursor={lone_surrogate}")).status == 400


async def test_a_cursor_at_the_end_of_what_it_can_hold_is_no_fault_of_the_server(api: Client) -> None:
    task = await api.create("n", schedule="@hourly")
    run = (await api.post(f"/api/tasks/{task['id']}/trigger")).json["id"]
    moments = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    ends: list[tuple[str, Any]] = [
        *((f"/api/tasks/{task['id']}/fires", moment) for moment in moments),
        *(("/api/workers", (moment, UUID(int=0))) for moment in moments),
        *((path, number) for path in ("/api/audit", f"/api/runs/{run}/attempts") for number in (-(2**63), 2**64 - 1)),
        *((f"/api/{path}", UUID(int=number)) for path in ("tasks", "runs", "events") for number in (0, 2**128 - 1)),
        *((f"/api/{path}", "x" * 10_000) for path in ("secrets", "calendars", "workflows", "keys", "queues")),
    ]
    for path, key in ends:
        assert (await api.get(f"{path}?cursor={encode_cursor(key)}")).status == 200, (path, key)
    for path in ("secrets", "calendars", "workflows", "keys"):
        assert (await api.get(f"/api/{path}?cursor={encode_cursor(chr(0))}")).status == 422, path


async def test_a_place_in_a_log_that_is_no_number_is_a_400(api: Client) -> None:
    run = await api.run_of(await api.create())
    for place in ("\xb2:0", "1:\xb2", "1:", "-1:0"):
        answer = await api.get(f"/api/runs/{run['id']}/logs", headers={"last-event-id": place})
        assert answer.status == 400, place


async def test_a_wrong_method_is_told_the_right_ones(api: Client) -> None:
    answer = await api.request("PUT", "/api/tasks")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    answer = await api.request("BREW", "/health/live")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_an_unknown_path_is_not_found(api: Client) -> None:
    for path in (
        "/",
        "/api",
        "/api/tasks/",
        "/api/nothing",
        "/api/tasks//runs",
        "/api/tasks/%ff/runs",
        "/api/runs/%00",
    ):
        assert (await api.get(path)).status == 404, path


async def test_a_body_that_is_not_json_is_not_accepted(api: Client) -> None:
    answer = await api.post("/api/tasks", raw=b"name=a", headers={"content-type": "text/plain"})
    assert (answer.status, answer.json["type"]) == (415, "urn:dts:problem:unsupported-media-type")


async def test_only_loopback_hosts_are_let_in(api: Client) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:80"):
        answer = await api.get("/health/live", headers={"host": host})
        assert (answer.status, answer.json["type"]) == (403, "urn:dts:problem:forbidden-host"), host
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080", "a.localhost"):
        assert (await api.get("/health/live", headers={"host": host})).status == 200, host
    assert (await api.get("/health/live", headers={"host": ""})).status == 400


async def test_a_page_of_another_origin_is_turned_away(api: Client) -> None:
    origins = {"http://localhost:3000": 200, "https://evil.example": 403, "null": 403, "file://localhost": 403}
    for origin, status in origins.items():
        assert (await api.get("/health/live", headers={"origin": origin})).status == status, origin


async def test_a_merge_patch_that_breaks_the_task_changes_nothing(api: Client) -> None:
    created = await api.create()
    target = f"/api/tasks/{created['id']}"
    for patch, status in (
        ({"name": None}, 400),
        ({"retry": 3}, 400),
        ({"x": 1}, 400),
        ({"command": ""}, 422),
        ([], 400),
    ):
        assert (await api.request("PATCH", target, patch)).status == status, patch
    assert (await api.get(target)).json["version"] == 1


async def test_two_mistakes_are_both_reported(api: Client) -> None:
    answer = await api.post("/api/tasks", task(command="", schedule="x", timezone="y"))
    assert answer.status == 422
    assert {"/command", "/timezone"} <= set(answer.pointers)
