"""Calendars over HTTP."""

from __future__ import annotations

from tests.roles.api.support import Client

CHRISTMAS = {"dates": ["2030-12-25"], "timezone": "Europe/Berlin"}


async def test_a_calendar_is_created_read_replaced_and_deleted(api: Client) -> None:
    made = await api.post("/api/calendars", {"name": "holidays", **CHRISTMAS})
    assert (made.status, made.json["version"], made.json["dates"]) == (201, 1, ["2030-12-25"])
    assert (await api.post("/api/calendars", {"name": "holidays", **CHRISTMAS})).status == 409
    path = "/api/calendars/holidays"
    changed = await api.request("PUT", path, {"weekly": [{"days": ["sat"], "from": "09:00:00"}]})
    assert (changed.status, changed.json["version"], changed.json["dates"]) == (200, 2, [])
    for other in ('"1"', '"9999999999"'):  # one that has passed, and one that no version will ever reach
        assert (await api.request("PUT", path, CHRISTMAS, headers={"if-match": other})).status == 412
        refused = await api.request("DELETE", path, headers={"if-match": other})
        assert (refused.status, refused.headers["etag"]) == (412, '"2"')
    assert (await api.get(path)).json == changed.json
    assert [c["name"] for c in (await api.get("/api/calendars")).json["items"]] == ["holidays"]
    assert (await api.request("PUT", "/api/calendars/new", CHRISTMAS)).status == 200
    assert (await api.request("PUT", "/api/calendars/newer", CHRISTMAS, headers={"if-match": '"1"'})).status == 404
    assert (await api.request("DELETE", path, headers={"if-match": '"2"'})).status == 204
    assert (await api.request("DELETE", path, headers={"if-match": '"2"'})).status == 404
    assert (await api.get(path)).status == 404


async def test_a_task_may_only_name_calendars_that_exist_and_keeps_them(api: Client) -> None:
    refused = await api.post("/api/tasks", {"name": "t", "command": "x", "schedule": "@daily", "calendars": ["no"]})
    assert refused.pointers == ["/calendars/0"]
    batch = await api.post("/api/tasks/batch", [{"name": "t", "command": "x", "calendars": ["no"]}])
    assert batch.pointers == ["/0/calendars/0"]
    await api.request("PUT", "/api/calendars/holidays", CHRISTMAS)
    task = await api.create("t", schedule="0 0 * * *", timezone="Europe/Berlin", calendars=["holidays"])
    assert (await api.request("PATCH", f"/api/tasks/{task['id']}", {"calendars": ["no"]})).pointers == ["/calendars/0"]
    assert (await api.request("DELETE", "/api/calendars/holidays")).status == 409
    plan = (await api.get(f"/api/tasks/{task['id']}/plan?from=2030-12-23T12:00:00Z&n=3")).json["items"]
    assert [item["note"] for item in plan] == [None, "skipped: a calendar blacks it out", None]


async def test_what_makes_no_sense_is_refused(api: Client) -> None:
    assert (await api.post("/api/calendars", {"name": "x"})).pointers == ["/dates"]
    assert (await api.post("/api/calendars", {"name": "x", "dates": ["2026-02-30"]})).status == 400
    assert (await api.post("/api/calendars", {"name": "x", "weekly": [{"days": []}]})).status == 400
    assert (await api.request("PUT", "/api/calendars/%20x", CHRISTMAS)).pointers == ["/name"]
