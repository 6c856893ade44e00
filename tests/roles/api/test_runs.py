from __future__ import annotations

from uuid import UUID

import anyio
import pytest

from scheduler.store import dead_letters
from scheduler.store.database import Database
from scheduler.store.outputs import Outputs
from scheduler.store.runs import OutputChunk
from tests.roles.api.support import Answer, Client, FakeWorker
from tests.support.locks import waiting_for_locks
from tests.support.rows import run_row
from tests.support.waiting import until


async def test_runs_are_listed_by_state_queue_and_task(api: Client, worker: FakeWorker) -> None:
    a, b, c = await api.create("a"), await api.create("b", queue="slow"), await api.create("c")
    await worker.end(await worker.claim(a["last_run"]["id"]))
    await worker.claim(c["last_run"]["id"])

    async def names(target: str) -> list[str]:
        return [run["task_name"] for run in (await api.get(target)).json["items"]]

    assert await names("/api/runs") == ["c", "b", "a"]
    assert await names("/api/runs?limit=2") == ["c", "b"]
    assert await names("/api/runs?state=completed") == ["a"]
    assert await names("/api/runs?state=pending") == ["b"]
    assert await names("/api/runs?state=running") == ["c"]
    assert await names("/api/runs?state=queued") == []
    assert await names("/api/runs?queue=slow") == ["b"]
    assert await names(f"/api/runs?task_id={b['id']}") == ["b"]
    assert await names(f"/api/tasks/{b['id']}/runs?state=failed") == []
    assert (await api.get("/api/runs?state=odd")).status == 422
    assert (await api.get("/api/runs?task_id=odd")).status == 422


async def test_attempts_show_those_that_ended_and_the_one_that_executes(api: Client, worker: FakeWorker) -> None:
    task = await api.create(retry={"max_attempts": 3})
    run_id = task["last_run"]["id"]
    first = await worker.claim(run_id)
    await worker.end(first, "pending", attempt_outcome="failed", reason="exit:1", retry_in=0.0)
    second = await worker.claim(run_id)
    attempts = (await api.get(f"/api/runs/{run_id}/attempts")).json["items"]
    assert [(a["attempt"], a["outcome"], a["fence"]) for a in attempts] == [
        (1, "failed", first.fence),
        (2, None, second.fence),
    ]


async def test_a_worker_is_asked_to_drain_as_long_as_it_is_there(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    asked = await api.post(f"/api/workers/{worker.id}/drain")
    assert (asked.status, asked.json["drain_requested"]) == (202, True)
    assert (await api.get("/api/workers")).json["items"][0]["drain_requested"] is True
    async with database.session() as connection:
        await connection.execute("UPDATE workers SET state = 'left', ended_at = now()")
    assert (await api.post(f"/api/workers/{worker.id}/drain")).status == 409
    assert (await api.post(f"/api/workers/{UUID(int=1)}/drain")).status == 404
    assert (await api.post("/api/workers/odd/drain")).status == 404


async def test_a_fence_holds_while_its_attempt_executes(api: Client, worker: FakeWorker) -> None:
    task = await api.create()
    run_id = task["last_run"]["id"]
    assert (await api.get(f"/api/runs/{run_id}/fence/1")).json == {"valid": False, "current": None}
    claim = await worker.claim(run_id)
    base = f"/api/runs/{run_id}/fence"
    assert (await api.get(f"{base}/{claim.fence}")).json == {"valid": True, "current": claim.fence}
    assert (await api.get(f"{base}/{claim.fence + 1}")).json == {"valid": False, "current": claim.fence}
    assert (await api.get(f"{base}/{'9' * 50}")).json["valid"] is False
    assert (await api.get(f"{base}/x")).status == 404
    await worker.end(claim)
    assert (await api.get(f"{base}/{claim.fence}")).json == {"valid": False, "current": None}


async def test_a_checkpoint_is_stored_with_the_fence_and_read_back(api: Client, worker: FakeWorker) -> None:
    task = await api.create()
    target = f"/api/runs/{task['last_run']['id']}/checkpoint"
    assert (await api.get(target)).status == 404
    claim = await worker.claim(task["last_run"]["id"])
    assert (await api.request("PUT", target, raw=b"x")).status == 409
    assert (await api.request("PUT", f"{target}?fence={claim.fence + 1}", raw=b"x")).status == 409
    stored = await api.request("PUT", f"{target}?fence={claim.fence}", raw=b"\x00\xff")
    assert (stored.status, stored.json["size"]) == (200, 2)
    read = await api.get(target)
    assert (read.body, read.headers["x-dts-fence"]) == (b"\x00\xff", str(claim.fence))
    assert (await api.request("PUT", f"{target}?fence={claim.fence}", raw=b"x" * (1024 * 1024 + 1))).status == 413


async def test_an_ended_run_is_retried_with_fresh_budgets_and_the_present_definition(
    api: Client, worker: FakeWorker
) -> None:
    task = await api.create(retry={"max_attempts": 1})
    run_id = task["last_run"]["id"]
    assert (await api.post(f"/api/runs/{run_id}/retry")).json["code"] == "not_retriable"
    await worker.end(await worker.claim(run_id), "failed")
    await api.request("PATCH", f"/api/tasks/{task['id']}", {"priority": 9, "retry": {"max_attempts": 7}})
    retried = await api.post(f"/api/runs/{run_id}/retry")
    assert retried.status == 200
    run = retried.json
    assert (run["state"], run["failures"], run["attempt"]) == ("pending", 0, 1)
    assert (run["priority"], run["max_attempts"]) == (9, 7)
    claim = await worker.claim(run_id)
    assert claim.attempt == 2
    await worker.end(claim)
    assert (await api.post(f"/api/runs/{run_id}/retry")).status == 409


@pytest.mark.parametrize("change", ["deleted", "edited"])
@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/api/runs/{run}/retry", None),
        ("/api/runs/retry", {"state": "dead_letter"}),
        ("/api/dead-letter/replay", {"limit": 10}),
    ],
)
async def test_a_run_is_revived_under_what_becomes_of_its_task_at_the_same_time(
    api: Client, worker: FakeWorker, database: Database, target: str, body: object, change: str
) -> None:
    task = await api.create()
    run_id, task_id = UUID(task["last_run"]["id"]), UUID(task["id"])
    await worker.end(await worker.claim(run_id), "dead_letter")
    async with anyio.create_task_group() as group, database.transaction() as executor:
        await api.context.tasks.lock(executor, "default", task_id)
        if change == "deleted":
            await api.context.tasks.delete(executor, task_id, "test")
        else:
            await executor.target.execute("""UPDATE tasks SET spec = spec || '{"queue": "new"}'""")
        group.start_soon(api.post, target.format(run=run_id), body)
        await until(lambda: waiting_for_locks(database), what="the task is waited for")
    run = await run_row(database, run_id)
    assert (run["state"], run["queue"]) == (("dead_letter", "default") if change == "deleted" else ("pending", "new"))


async def test_outputs_are_shown_as_the_json_that_they_are(api: Client, worker: FakeWorker) -> None:
    task = await api.create()
    run_id = task["last_run"]["id"]
    assert (await api.get(f"/api/runs/{run_id}/outputs")).json is None
    await worker.end(await worker.claim(run_id), outputs=b'{"rows": 3}', output_tail="done\n")
    assert (await api.get(f"/api/runs/{run_id}/outputs")).json == {"rows": 3}
    run = (await api.get(f"/api/runs/{run_id}")).json
    assert (run["outputs"], run["output_tail"], run["exit_code"]) == ({"rows": 3}, "done\n", 0)


async def codes(api: Client, run_id: str) -> list[str]:
    answer = (await api.get(f"/api/runs/{run_id}/explain")).json
    return [blocker["code"] for blocker in answer["blockers"]]


async def test_explain_names_every_live_blocker(api: Client, worker: FakeWorker) -> None:
    assert worker
    upstream = await api.create("up", delay=3600)
    task = await api.create("down", depends_on=[{"task": "up"}], run_at="2099-01-01T00:00:00Z", queue="nowhere")
    run_id = task["last_run"]["id"]
    await api.post(f"/api/tasks/{task['id']}/pause")
    await api.post("/api/queues/nowhere/pause")
    explained = (await api.get(f"/api/runs/{run_id}/explain")).json
    assert [b["code"] for b in explained["blockers"]] == [
        "task_paused",
        "queue_paused",
        "dependency",
        "time",
        "no_worker",
    ]
    assert explained["blockers"][2]["run_id"] == upstream["last_run"]["id"]
    assert explained["blockers"][3]["until"] == "2099-01-01T00:00:00Z"
    assert await codes(api, upstream["last_run"]["id"]) == ["time"]


async def test_explain_tells_backoff_capacity_execution_and_end_apart(api: Client, worker: FakeWorker) -> None:
    runs = [(await api.create(f"t{n}", retry={"max_attempts": 3}))["last_run"]["id"] for n in range(9)]
    claims = [await worker.claim(run_id) for run_id in runs[:8]]
    assert await codes(api, runs[0]) == ["running"]
    assert await codes(api, runs[8]) == ["capacity", "no_leader"]
    await worker.end(claims[0], "pending", attempt_outcome="failed", retry_in=600.0)
    assert await codes(api, runs[0]) == ["retry_backoff"]
    await worker.end(claims[1])
    assert await codes(api, runs[1]) == ["ended"]


async def test_pausing_a_queue_closes_its_lane_and_resuming_forgets_it(api: Client) -> None:
    await api.context.broker.mark_open("default")
    assert (await api.create())["status"] == "queued"
    paused = await api.post("/api/queues/default/pause")
    assert paused.json == {"name": "default", "paused": True}
    assert (await api.create())["status"] == "pending"
    queues = (await api.get("/api/queues")).json["items"]
    assert [(q["name"], q["paused"], q["pending"], q["queued"]) for q in queues] == [("default", True, 1, 1)]
    assert (await api.post("/api/queues/default/resume")).json["paused"] is False


async def test_workers_are_listed(api: Client, worker: FakeWorker) -> None:
    (shown,) = (await api.get("/api/workers")).json["items"]
    assert (shown["id"], shown["state"], shown["slots"]) == (str(worker.id), "live", 8)


async def bury(api: Client, worker: FakeWorker, name: str, reason: str = "exit:1", **fields: object) -> str:
    task = await api.create(name, retry={"max_attempts": 2}, **fields)
    run_id: str = task["last_run"]["id"]
    await worker.end(await worker.claim(run_id), "dead_letter", reason=reason)
    return run_id


async def test_dead_letters_are_listed_replayed_with_edits_and_discarded(api: Client, worker: FakeWorker) -> None:
    a = await bury(api, worker, "a", "timeout")
    await bury(api, worker, "b", "exit:3", queue="slow")
    items = (await api.get("/api/dead-letter")).json["items"]
    assert [(item["task_name"], item["reason"]) for item in items] == [("b", "exit:3"), ("a", "timeout")]
    assert len((await api.get("/api/dead-letter?reason=exit")).json["items"]) == 1
    assert len((await api.get("/api/dead-letter?queue=default")).json["items"]) == 1

    wrong = await api.post("/api/dead-letter/replay", {"reason": "timeout", "edits": {"command": ""}})
    assert (wrong.status, wrong.pointers) == (422, ["/edits/command"])
    replayed = await api.post("/api/dead-letter/replay", {"reason": "timeout", "edits": {"timeout": "2h"}})
    assert [(i["result"], i["run_id"]) for i in replayed.json["items"]] == [("replayed", a)]
    run = (await api.get(f"/api/runs/{a}")).json
    assert (run["state"], run["failures"]) == ("pending", 0)
    assert (await api.get(f"/api/tasks/{run['task_id']}")).json["timeout"] == 7200.0

    discarded = await api.post("/api/dead-letter/discard", {"ids": [items[0]["id"], items[1]["id"]]})
    assert [(i["result"], i.get("code")) for i in discarded.json["items"]] == [
        ("discarded", None),
        ("refused", "already_replayed"),
    ]
    assert (await api.get("/api/dead-letter")).json["items"] == []
    assert (await api.post("/api/dead-letter/replay", {"ids": [items[0]["id"]]})).json["items"][0][
        "result"
    ] == "refused"


@pytest.mark.parametrize("decision", ["replay", "discard"])
async def test_a_dead_letter_is_decided_by_filter_however_many_newer_ones_there_are(
    api: Client, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    monkeypatch.setattr(dead_letters, "WALK", 5)
    wanted = await bury(api, worker, "wanted", queue="b")
    for number in range(6):
        await bury(api, worker, f"newer {number}", queue="a")
    decided = (await api.post(f"/api/dead-letter/{decision}", {"queue": "b"})).json["items"]
    assert [item["run_id"] for item in decided] == [wanted]


async def printed(database: Database, run_id: str, attempt: int, *pieces: tuple[int, str, bytes]) -> None:
    outputs = Outputs(database)
    async with anyio.create_task_group() as group:
        group.start_soon(outputs.run)
        await outputs.append(UUID(run_id), attempt, [OutputChunk(*piece) for piece in pieces])
        group.cancel_scope.cancel()


def events(answer: Answer) -> list[tuple[str, str, str]]:
    found = []
    for block in answer.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["id"], fields["event"], fields["data"]))
    return found


async def test_logs_are_text_from_any_offset_and_of_either_stream(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    run_id = (await api.create())["last_run"]["id"]
    assert (await api.get(f"/api/runs/{run_id}/logs")).body == b""
    await worker.claim(run_id)
    await printed(database, run_id, 1, (0, "stdout", b"one\n"), (4, "stderr", b"\xfftwo\n"), (9, "stdout", b"three\n"))
    target = f"/api/runs/{run_id}/logs"
    assert (await api.get(target)).body == b"one\n\xfftwo\nthree\n"
    assert (await api.get(f"{target}?stream=stdout")).body == b"one\nthree\n"
    assert (await api.get(f"{target}?offset=5&attempt=1")).body == b"two\nthree\n"
    assert (await api.get(f"{target}?attempt=2")).body == b""
    assert (await api.get(f"{target}?offset=-1")).status == 422


async def test_a_follower_gets_the_rest_when_it_is_printed_and_the_end(
    api: Client, worker: FakeWorker, database: Database
) -> None:
    run_id = (await api.create())["last_run"]["id"]
    claim = await worker.claim(run_id)
    await printed(database, run_id, 1, (0, "stdout", "grün\n".encode()[:3]))
    answers: list[Answer] = []

    async def follow() -> None:
        headers = {"accept": "text/event-stream"}
        answers.append(await api.get(f"/api/runs/{run_id}/logs", headers=headers))

    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await printed(database, run_id, 1, (3, "stdout", "grün\n".encode()[3:]), (6, "stderr", b"!"))
        await worker.end(claim)
        await api.context.broker.publish(f"logs:{run_id}")
    found = events(answers[0])
    assert answers[0].headers["content-type"].startswith("text/event-stream")
    assert found[-1] == ("1:7", "end", '{"state":"completed","reason":"exit:0"}')
    text = "".join(data.partition('"text":"')[2].partition('"')[0] for _, _, data in found)
    assert text == "grün\\n!"
    resumed = await api.get(f"/api/runs/{run_id}/logs?follow=true", headers={"last-event-id": "1:6"})
    assert [event[:2] for event in events(resumed)] == [("1:7", "stderr"), ("1:7", "end")]
    assert (await api.get(f"/api/runs/{run_id}/logs", headers={"last-event-id": "x"})).status == 400


async def test_output_that_was_dropped_is_a_gap(api: Client, worker: FakeWorker, database: Database) -> None:
    run_id = (await api.create())["last_run"]["id"]
    claim = await worker.claim(run_id)
    await printed(database, run_id, 1, (100, "stdout", b"late"))
    await worker.end(claim)
    found = events(await api.get(f"/api/runs/{run_id}/logs?follow=1"))
    assert found[0] == ("1:100", "gap", '{"bytes":100,"position":100}')
    assert b"100 bytes were dropped" in (await api.get(f"/api/runs/{run_id}/logs")).body


async def test_followers_are_sent_home_when_the_server_stops(api: Client, worker: FakeWorker) -> None:
    run_id = (await api.create())["last_run"]["id"]
    await worker.claim(run_id)
    answers: list[Answer] = []

    async def follow() -> None:
        answers.append(await api.get(f"/api/runs/{run_id}/logs?follow=true"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            api.context.stopping.set()
    assert events(answers[0]) == []


async def test_a_run_behind_a_gate_never_takes_the_fast_path_and_explain_names_what_blocks_it(
    api: Client, worker: FakeWorker
) -> None:
    await api.context.broker.mark_open("default")
    assert (await api.create("plain"))["status"] == "queued"
    rules = {"concurrency": {"key": "k"}, "rate_limit": {"key": "r", "n": 1, "per": "1h"}}
    first, second = await api.create("a", **rules), await api.create("b", **rules)
    fair = await api.create("c", fairness_key="them")
    assert [task["status"] for task in (first, second, fair)] == ["pending"] * 3
    await worker.claim(first["last_run"]["id"])
    blockers = (await api.get(f"/api/runs/{second['last_run']['id']}/explain")).json["blockers"]
    named = {b["code"]: b for b in blockers}
    assert named["concurrency"]["key"] == "k"
    assert named["rate_limit"]["key"] == "r"
    assert 3500 < named["rate_limit"]["seconds"] <= 3600
    triggered = await api.create("d", schedule="0 0 1 1 *", **rules)
    run = (await api.post(f"/api/tasks/{triggered['id']}/trigger")).json
    assert run["state"] == "pending"


async def test_an_edit_moves_waiting_runs_behind_another_gate(api: Client) -> None:
    task = await api.create("a", concurrency={"key": "k"}, delay="1h")
    heads = await api.context.database.fetch("waiting_heads", "", "", -1, 10)
    assert [row["concurrency_key"] for row in heads] == ["k"]
    await api.request("PATCH", f"/api/tasks/{task['id']}", {"concurrency": {"key": "other"}})
    heads = await api.context.database.fetch("waiting_heads", "", "", -1, 10)
    assert [row["concurrency_key"] for row in heads] == ["other"]
    await api.request("PATCH", f"/api/tasks/{task['id']}", {"concurrency": None})
    assert await api.context.database.fetch("waiting_heads", "", "", -1, 10) == []
