"""Workflows from definition to end: over HTTP, a leader and a worker, on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import anyio
import pytest

from scheduler.broker import Broker
from scheduler.control.fire import Firer
from scheduler.control.promote import Promoter
from scheduler.control.unfold import WORKFLOWS, Stuck, Unfolder
from scheduler.domain.clock import SystemClock
from scheduler.domain.task import decode_spec
from scheduler.store.database import Database
from scheduler.store.runs import Runs
from scheduler.store.schedules import Schedules
from scheduler.store.tasks import Tasks
from scheduler.store.unfolding import Unfolding
from tests.roles.api.support import Client, FakeWorker, running_api, running_worker
from tests.support.locks import waiting_for_locks
from tests.support.recurring import lead, leading, minute
from tests.support.rows import IDS
from tests.support.waiting import until

LINE = [
    {"name": "a", "command": "a"},
    {"name": "b", "command": "b", "depends_on": [{"task": "a"}]},
    {"name": "c", "command": "c", "depends_on": [{"task": "b"}]},
]


class World:
    """An API, a worker that does what the test says, and a leader whose steps are taken by hand."""

    def __init__(self, api: Client, worker: FakeWorker, database: Database, broker: Broker, epoch: int) -> None:
        self.api, self.worker, self.database = api, worker, database
        at_work = leading(database, broker, epoch, poll=60.0)
        self.fire = Firer(at_work, Schedules(database)).step
        self.promote = Promoter(at_work).step
        self.health = at_work.health
        self._unfold = Unfolder(at_work, Unfolding(database, IDS)).step

    async def go_on(self) -> None:
        while await self._unfold() == 0.0:
            pass
        await self.promote()

    async def create(self, name: str = "w", **fields: Any) -> Any:
        answer = await self.api.post("/api/workflows", {"name": name, "tasks": LINE, **fields})
        assert answer.status == 201, answer.body
        return answer.json

    async def start(self, name: str = "w", **parameters: str) -> Any:
        answer = await self.api.post(f"/api/workflows/{name}/runs", {"parameters": parameters})
        assert answer.status == 201, answer.body
        await self.go_on()
        return await self.run(answer.json["id"])

    async def run(self, run_id: str) -> Any:
        return (await self.api.get(f"/api/workflow-runs/{run_id}")).json

    async def end(self, run: Any, name: str, state: str = "completed") -> Any:
        """End one task of a run, and return the run."""
        node = next(node for node in run["nodes"] if node["name"] == name)
        await self.worker.end(await self.worker.claim(node["run_id"]), state)
        await self.go_on()
        return await self.run(run["id"])


@pytest.fixture
async def world(database: Database, redis_url: str) -> AsyncIterator[World]:
    async with (
        running_api(database, redis_url) as api,
        running_worker(database) as worker,
        Broker.connect(redis_url, installation="test", name="test", clock=SystemClock()) as broker,
    ):
        yield World(api, worker, database, broker, await lead(database))


def states(run: Any) -> dict[str, str]:
    return {node["name"]: node["state"] for node in run["nodes"]}


async def test_a_workflow_run_holds_one_run_for_each_task_in_their_order_and_completes_with_them(world: World) -> None:
    await world.create(parameters={"DAY": "monday", "N": "1"})
    run = await world.start(DAY="tuesday")
    assert (run["state"], run["parameters"]) == ("pending", {"DAY": "tuesday", "N": "1"})
    assert states(run) == {"a": "queued", "b": "pending", "c": "pending"}
    claim = await world.worker.claim(run["nodes"][0]["run_id"])
    assert decode_spec(claim.spec).env == {"DAY": "tuesday", "N": "1"}
    await world.worker.end(claim)
    run = await world.end(await world.run(run["id"]), "b")
    assert states(run) == {"a": "completed", "b": "completed", "c": "queued"}
    run = await world.end(run, "c")
    assert (run["state"], run["reason"]) == ("completed", None)
    assert [r["id"] for r in (await world.api.get("/api/workflows/w/runs?state=completed")).json["items"]] == [
        run["id"]
    ]


async def test_a_failed_run_is_run_again_from_where_it_failed(world: World) -> None:
    await world.create()
    run = await world.end(await world.start(), "a")
    run = await world.end(run, "b", "failed")
    assert (run["state"], run["reason"]) == ("failed", "task_failed:b")
    assert states(run) == {"a": "completed", "b": "failed", "c": "skipped"}
    assert (await world.api.post(f"/api/workflow-runs/{run['id']}/rerun")).status == 200
    await world.go_on()
    run = await world.run(run["id"])
    assert (run["state"], states(run)) == ("pending", {"a": "completed", "b": "queued", "c": "pending"})
    assert (await world.api.post(f"/api/workflow-runs/{run['id']}/rerun")).status == 409
    run = await world.end(await world.end(run, "b"), "c")
    assert (run["state"], run["nodes"][1]["attempt"]) == ("completed", 2)
    assert (await world.api.post(f"/api/workflow-runs/{run['id']}/rerun")).json["code"] == "nothing_to_rerun"


async def test_what_a_retry_alone_leaves_skipped_is_run_by_a_rerun(world: World) -> None:
    await world.create()
    run = await world.end(await world.end(await world.start(), "a"), "b", "failed")
    await world.api.post("/api/runs/retry", {"state": "failed"})
    await world.go_on()
    run = await world.end(run, "b")
    assert states(run) == {"a": "completed", "b": "completed", "c": "skipped"}
    assert (run["state"], run["reason"]) == ("failed", "task_skipped:c")
    assert (await world.api.post(f"/api/workflow-runs/{run['id']}/rerun")).status == 200
    await world.go_on()
    assert (await world.end(run, "c"))["state"] == "completed"


async def test_a_run_keeps_the_version_that_it_began_with(world: World) -> None:
    workflow = await world.create()
    run = await world.start()
    changed = {"name": "w", "tasks": [{"name": "other", "command": "x"}], "overlap": "allow_all"}
    put = await world.api.request("PUT", "/api/workflows/w", changed, headers={"if-match": '"1"'})
    assert (put.status, put.json["version"], put.json["task_id"]) == (200, 2, workflow["task_id"])
    assert (await world.api.request("PUT", "/api/workflows/w", changed, headers={"if-match": '"1"'})).status == 412
    newer = await world.start()
    assert (newer["version"], list(states(newer))) == (2, ["other"])
    for name in ("a", "b", "c"):
        run = await world.end(run, name)
    assert (run["state"], run["version"], len(run["nodes"])) == ("completed", 1, 3)


async def test_a_workflow_has_a_schedule_and_its_overlap_rule_counts_whole_runs(world: World) -> None:
    at = minute()
    workflow = await world.create(schedule=f"{at.minute} * * * *")
    async with world.database.session() as connection:
        await connection.execute(
            "UPDATE tasks SET next_fire_at = $1::timestamptz, fire_cursor = $1::timestamptz - interval '1 minute'", at
        )
    await world.fire()
    await world.go_on()
    (run,) = (await world.api.get("/api/workflows/w/runs")).json["items"]
    assert (run["trigger"], run["state"]) == ("schedule", "pending")
    assert states(await world.run(run["id"])) == {"a": "queued", "b": "pending", "c": "pending"}
    second = await world.api.post("/api/workflows/w/runs")
    assert (second.json["state"], second.json["reason"]) == ("skipped", "overlap")
    fires = (await world.api.get(f"/api/tasks/{workflow['task_id']}/fires")).json["items"]
    assert [fire["run_id"] for fire in fires] == [run["id"]]


async def test_cancelling_a_run_ends_its_tasks_whether_by_its_own_name_or_as_a_run(world: World) -> None:
    await world.create(overlap="allow_all")
    run = await world.start()
    claim = await world.worker.claim(run["nodes"][0]["run_id"])
    cancelled = await world.api.post(f"/api/workflow-runs/{run['id']}/cancel")
    assert (cancelled.status, cancelled.json["requested"]) == (202, [run["nodes"][0]["run_id"]])
    await world.worker.end(claim, "cancelled")
    run = await world.run(run["id"])
    assert run["state"] == "cancelled"
    assert set(states(run).values()) <= {"cancelled", "skipped"}
    other = await world.start()
    assert (await world.api.post(f"/api/runs/{other['id']}/cancel")).status == 200
    await world.go_on()
    assert set(states(await world.run(other["id"])).values()) <= {"cancelled", "skipped"}


async def test_a_run_that_was_ended_and_lives_again_ends_its_tasks_with_it(world: World) -> None:
    await world.create()
    run = (await world.api.post("/api/workflows/w/runs")).json
    assert (await world.api.post(f"/api/runs/{run['id']}/cancel")).status == 200
    await world.go_on()
    assert (await world.api.post(f"/api/runs/{run['id']}/retry")).status == 200
    await world.go_on()
    assert states(await world.run(run["id"])) == {"a": "queued", "b": "pending", "c": "pending"}
    assert (await world.api.post(f"/api/runs/{run['id']}/cancel")).status == 200
    await world.go_on()
    assert set(states(await world.run(run["id"])).values()) <= {"cancelled", "skipped"}


async def test_what_is_let_run_again_while_the_leader_finds_it_ended_goes_on(world: World, database: Database) -> None:
    await world.create()
    run = await world.start()
    run_id, runs = UUID(run["id"]), Runs(database)
    assert (await world.api.post(f"/api/runs/{run_id}/cancel")).status == 200
    async with anyio.create_task_group() as group, database.transaction() as executor:
        await runs.lock(executor, "default", run_id)
        group.start_soon(world.go_on)
        await until(lambda: waiting_for_locks(database))
        revivable = await runs.revivable(executor, "default", [run_id])
        assert await runs.revive(executor, "default", [(run_id, revivable[run_id].spec)], "somebody") == [run_id]
    assert states(await world.run(run["id"])) == {"a": "queued", "b": "pending", "c": "pending"}
    for name in ("a", "b", "c"):
        run = await world.end(run, name)
    assert run["state"] == "completed"


@pytest.mark.parametrize("parameters", [{"X": "x" * 200_000}, {"TRACEPARENT": "00-1"}], ids=["large", "reserved"])
async def test_parameters_that_no_task_can_have_are_refused_wherever_they_are_given(
    world: World, parameters: dict[str, str]
) -> None:
    body = {"name": "w", "tasks": LINE, "parameters": parameters}
    assert (await world.api.post("/api/workflows", body)).pointers == ["/parameters"]
    await world.create(parameters={"X": ""}, schedule="@event built")
    refused = await world.api.post("/api/workflows/w/runs", {"parameters": parameters})
    assert (refused.status, refused.pointers) == (422, ["/parameters"])


async def test_an_event_that_is_too_large_for_the_parameters_of_a_workflow_is_refused(world: World) -> None:
    await world.create(parameters={"X": ""}, schedule="@event built")
    refused = await world.api.post("/api/events/built", {"X": "x" * 200_000})
    assert refused.status == 422
    assert "'w'" in refused.json["errors"][0]["detail"]
    assert (await world.api.get("/api/events")).json["items"] == []
    assert len((await world.api.post("/api/events/built", {"Y": "x" * 200_000})).json["runs"]) == 1


@pytest.mark.parametrize(
    "poison",
    ["spec = '{}'", """parameters = jsonb_build_object('X', repeat('x', 30000000))"""],
    ids=["unreadable", "unbearable"],
)
async def test_a_run_that_cannot_go_on_stops_no_other_and_goes_on_once_it_can(world: World, poison: str) -> None:
    await world.create(overlap="allow_all")
    stuck, sane = [(await world.api.post("/api/workflows/w/runs")).json for _ in range(2)]
    async with world.database.session() as connection:
        kept = await connection.fetchrow("SELECT spec, parameters FROM workflow_runs LIMIT 1")
        await connection.execute(f"UPDATE workflow_runs SET {poison} WHERE run_id = $1", UUID(stuck["id"]))
    await world.go_on()
    assert states(await world.run(sane["id"])) == {"a": "queued", "b": "pending", "c": "pending"}
    assert (await world.run(stuck["id"]))["nodes"] == []
    part = world.health.snapshot()[WORKFLOWS]
    assert not part.ok
    assert stuck["id"] in part.detail
    async with world.database.session() as connection:
        await connection.execute(
            "UPDATE workflow_runs SET spec = $2, parameters = $3 WHERE run_id = $1", UUID(stuck["id"]), *kept
        )

    async def goes_on() -> bool:
        await world.go_on()
        return states(await world.run(stuck["id"])).keys() == set("abc")

    await until(goes_on)
    assert world.health.snapshot()[WORKFLOWS].ok


def test_a_run_that_cannot_go_on_is_left_for_longer_and_longer_and_forgotten_once_it_has_ended() -> None:
    stuck, run = Stuck(), UUID(int=1)
    for now, left_for in ((0.0, 1.0), (1.0, 2.0), (3.0, 4.0), (7.0, 8.0)):
        stuck.note(run, now)
        assert (stuck.left(now + left_for - 0.1), stuck.left(now + left_for)) == ([run], [])
    stuck.forget(14.0, [])
    assert stuck.summary()
    stuck.forget(15.0, [])
    assert not stuck.summary()


async def test_names_are_unique_among_workflows_and_recurring_tasks_and_carriers_are_changed_with_their_workflow(
    world: World,
) -> None:
    workflow = await world.create()
    assert (await world.api.post("/api/workflows", {"name": "w", "tasks": LINE})).status == 409
    taken = await world.api.post("/api/tasks", {"name": "w", "command": "x", "schedule": "@daily"})
    assert taken.status == 409
    carrier = f"/api/tasks/{workflow['task_id']}"
    assert (await world.api.request("PATCH", carrier, {"executor": "process", "schedule": "@daily"})).status == 409
    assert (await world.api.request("DELETE", carrier)).status == 409
    assert (await world.api.post("/api/workflows/w/runs", {"parameters": {"X": "1"}})).pointers == ["/parameters"]
    run = await world.start()
    assert (await world.api.request("DELETE", "/api/workflows/w")).status == 409
    assert (await world.api.request("DELETE", "/api/workflows/w?cascade=cancel")).status == 204
    await world.go_on()
    assert "queued" not in states(await world.run(run["id"])).values()
    assert (await world.api.get("/api/workflows/w")).status == 404
    await world.create()


@pytest.mark.parametrize(("live", "code"), [(False, "dependents"), (True, "live_runs")])
async def test_what_waits_for_a_workflow_keeps_it_or_is_skipped_with_it(world: World, live: bool, code: str) -> None:
    """The condition is one that the end of a cancelled run would meet."""
    await world.create(schedule="@daily")
    if live:
        await world.start()
    waiting = await world.api.create("waiting", depends_on=[{"task": "w", "on": "completion"}])
    refused = await world.api.request("DELETE", "/api/workflows/w")
    assert (refused.status, refused.json["code"]) == (409, code)
    assert (await world.api.request("DELETE", "/api/workflows/w?cascade=cancel")).status == 204
    await world.go_on()
    run = await world.api.run_of(waiting)
    assert (run["state"], run["reason"]) == ("skipped", "dependency_deleted")


async def test_a_recurring_task_that_depends_on_a_workflow_keeps_it_unless_told_to_let_go(world: World) -> None:
    await world.create(schedule="@daily")
    await world.api.create("down", schedule="@daily", depends_on=[{"task": "w"}])
    refused = await world.api.request("DELETE", "/api/workflows/w")
    assert (refused.status, refused.json["code"]) == (409, "dependents")
    assert "'down'" in refused.json["detail"]
    assert (await world.api.request("DELETE", "/api/workflows/w?cascade=cancel")).status == 204


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_a_change_that_waits_for_another_one_is_judged_by_what_that_has_left(world: World, method: str) -> None:
    workflow = await world.create()
    body = {"name": "w", "tasks": LINE, "timezone": "Europe/Berlin"} if method == "PUT" else None
    answers = []

    async def change() -> None:
        answers.append(await world.api.request(method, "/api/workflows/w", body, headers={"if-match": '"1"'}))

    async with anyio.create_task_group() as group, world.database.transaction() as executor:
        assert await Tasks(world.database).lock(executor, "default", UUID(workflow["task_id"]))
        group.start_soon(change)
        await until(lambda: waiting_for_locks(world.database))
        await executor.target.execute("UPDATE workflows SET version = 2")
    assert [(answer.status, answer.headers["etag"]) for answer in answers] == [(412, '"2"')]
    assert (await world.api.get("/api/workflows/w")).json["version"] == 2


async def test_a_run_that_has_begun_ends_while_its_workflow_is_paused_and_another_is_held(world: World) -> None:
    workflow = await world.create(overlap="allow_all")
    run = await world.start()
    waiting = (await world.api.post("/api/workflows/w/runs")).json
    assert (await world.api.post(f"/api/tasks/{workflow['task_id']}/pause")).status == 200
    for name in ("a", "b", "c"):
        run = await world.end(run, name)
    assert run["state"] == "completed"
    assert (await world.run(waiting["id"]))["nodes"] == []
    assert states(await world.start()).keys() == set("abc"), "what is started by hand does not wait for the pause"
    assert (await world.api.post(f"/api/tasks/{workflow['task_id']}/resume")).status == 200
    await world.go_on()
    assert states(await world.run(waiting["id"])).keys() == set("abc")


async def test_a_pause_sees_the_run_that_was_unfolded_while_it_waited(world: World) -> None:
    workflow = await world.create()
    run = (await world.api.post("/api/workflows/w/runs")).json
    async with anyio.create_task_group() as group, world.database.transaction() as executor:
        assert await executor.fetchrow("lock_workflow_run", UUID(run["id"]))
        await executor.target.execute("UPDATE workflow_runs SET unfolded_at = dts_now()")
        group.start_soon(world.api.post, f"/api/tasks/{workflow['task_id']}/pause")
        await until(lambda: waiting_for_locks(world.database))
    async with world.database.session() as connection:
        assert not await connection.fetchval("SELECT held FROM runs WHERE id = $1", UUID(run["id"]))


async def test_explain_names_the_tasks_that_a_workflow_run_waits_for(world: World) -> None:
    await world.create()
    run = await world.start()
    blockers = (await world.api.get(f"/api/runs/{run['id']}/explain")).json["blockers"]
    assert [b["code"] for b in blockers] == ["dependency"] * 3


async def test_explain_names_no_queue_for_a_run_of_a_workflow_which_is_never_queued(world: World) -> None:
    await world.create()
    await world.api.post("/api/queues/default/pause")
    run = (await world.api.post("/api/workflows/w/runs")).json
    blockers = (await world.api.get(f"/api/runs/{run['id']}/explain")).json["blockers"]
    assert [b["code"] for b in blockers] == ["promotion"]


async def test_a_workflow_that_loses_its_schedule_records_what_had_come_due_of_it(
    world: World, database: Database
) -> None:
    workflow = await world.create(schedule="0 3 * * *")
    async with database.session() as connection:
        await connection.execute(
            "UPDATE tasks"
            " SET fire_cursor = next_fire_at - interval '3 days', next_fire_at = next_fire_at - interval '2 days'"
        )
    replaced = await world.api.request("PUT", "/api/workflows/w", {"name": "w", "tasks": LINE})
    assert (replaced.status, replaced.json["next_fire_at"]) == (200, None)
    [fire] = (await world.api.get(f"/api/tasks/{workflow['task_id']}/fires")).json["items"]
    assert (fire["disposition"], fire["count"]) == ("missed", 2)
