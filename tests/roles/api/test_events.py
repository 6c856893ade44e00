"""The stream of events: what it tells, where it goes on, and what it admits to have missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pytest

from scheduler.api import events as module
from scheduler.api import feed as feed_module
from scheduler.api.settings import ApiSettings
from scheduler.domain import keys
from scheduler.store import changes as changes_module
from scheduler.store.database import Database
from scheduler.store.pages import LAST_ID
from scheduler.wire.events import Change
from tests.roles.api.access_support import Closed
from tests.roles.api.support import Client, FakeWorker, running_api
from tests.support import until
from tests.support.rows import IDS


class Follower:
    """A client of the stream."""

    def __init__(self) -> None:
        self.text = b""
        self.ended = False
        self.complete = False  # the last of the answer was sent, if it has not arrived yet
        self.refused = False
        self.hold = anyio.Event()  # clear it to be slow
        self.hold.set()

    @property
    def messages(self) -> list[tuple[str, Any]]:
        found = []
        for block in self.text.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":")
            if "data" in fields:
                found.append((fields["event"], msgspec.json.decode(fields["data"])))
        return found

    @property
    def last_id(self) -> str:
        return [line for line in self.text.decode().split("\n") if line.startswith("id: ")][-1][4:]

    def states(self, identifier: str) -> list[str]:
        return [data["state"] for _, data in self.messages if data.get("id") == identifier]


@asynccontextmanager
async def following(
    api: Client, query: str = "", last_id: str | None = None, key: str | None = None
) -> AsyncIterator[Follower]:
    follower = Follower()
    gone = anyio.Event()
    headers = [(b"host", b"localhost")] + ([(b"last-event-id", last_id.encode())] if last_id else [])
    if key is not None:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/events/stream",
        "raw_path": b"/api/events/stream",
        "query_string": query.encode(),
        "headers": headers,
    }

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if follower.complete:
            follower.refused = True
            raise RuntimeError("a server refuses what comes after the end of an answer")
        follower.complete = message["type"] == "http.response.body" and not message.get("more_body")
        await follower.hold.wait()
        follower.text += message.get("body", b"")

    async def run() -> None:
        await api.app(scope, receive, send)
        follower.ended = True

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await until(lambda: follower.text)
        yield follower
        follower.hold.set()
        gone.set()


@pytest.fixture
async def quick(database: Database, redis_url: str) -> AsyncIterator[Client]:
    """An API that looks often."""
    settings = ApiSettings(development=True, event_poll=0.05, sse_keepalive=0.3)
    async with running_api(database, redis_url, settings) as client:
        yield client


async def test_runs_tasks_and_workers_are_told_as_they_change(
    quick: Client, worker: FakeWorker, database: Database
) -> None:
    async with following(quick) as seen:
        task = await quick.create("nightly", schedule="@hourly")
        run = (await quick.post(f"/api/tasks/{task['id']}/trigger")).json["id"]
        await until(lambda: seen.states(run))
        claim = await worker.claim(run)
        await until(lambda: seen.states(run)[-1] == "running")
        await worker.end(claim, "pending", retry_in=60.0)
        await until(lambda: seen.states(run)[-1] == "pending")
        await quick.post(f"/api/runs/{run}/cancel")
        await until(lambda: seen.states(run)[-1] == "cancelled")
        await quick.post(f"/api/tasks/{task['id']}/pause")
        await until(lambda: seen.states(task["id"]) == ["active", "paused"])
        await quick.post(f"/api/workers/{worker.id}/drain")
        await until(lambda: seen.states(str(worker.id)) == ["draining"])
        async with database.session() as connection:
            await connection.execute(
                "UPDATE leadership SET epoch = 3, holder = gen_random_uuid(), host = 'h', acquired_at = dts_now()"
            )
        await until(lambda: [d["state"] for kind, d in seen.messages if kind == "leader"] == ["leading"])
    told = [(kind, data["id"], data.get("version"), data["state"]) for kind, data in seen.messages]
    assert len(set(told)) == len(told), "nothing was told twice"


async def test_whoever_comes_back_gets_what_changed_meanwhile(quick: Client, worker: FakeWorker) -> None:
    async with following(quick) as seen:
        before = seen.last_id
    run = (await quick.create())["last_run"]["id"]
    await worker.end(await worker.claim(run))
    async with following(quick, last_id=before) as again:
        await until(lambda: again.states(run) == ["completed"])
        last = again.last_id
    assert int(last) > int(before)


async def test_a_change_that_is_committed_late_is_told(quick: Client, database: Database) -> None:
    """Its time lies before looks that could not see it yet."""
    run = (await quick.create())["last_run"]["id"]
    async with following(quick) as seen:
        async with database.transaction() as executor:
            await quick.context.runs.cancel(executor, "default", [run])
            looked = quick.context.feed.position
            await until(lambda: quick.context.feed.position > looked)
        await until(lambda: seen.states(run)[-1:] == ["cancelled"])


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run was created too long ago for a look to find it by that."""
    monkeypatch.setattr(changes_module, "first_id_at", lambda _: LAST_ID)


async def _queue(database: Database, run: str, at: str = "dts_now()") -> None:
    async with database.session() as connection:
        await connection.execute(
            "UPDATE runs SET state = 'queued', dispatch_seq = dispatch_seq + 1, version = version + 1,"
            f" queued_at = {at} WHERE id = $1",
            UUID(run),
        )


async def _told(seen: Follower, run: str, state: str) -> None:
    await until(lambda: seen.states(run)[-1:] == [state], what=f"{run} is told as {state}")


async def _trigger(api: Client, name: str) -> tuple[str, str]:
    task = (await api.create(name, schedule="@daily"))["id"]
    return task, (await api.post(f"/api/tasks/{task}/trigger")).json["id"]


@pytest.mark.usefixtures("long_ago")
async def test_a_run_that_stood_queued_and_waits_again_is_told(
    quick: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_ASKED", 1)
    runs = dict([await _trigger(quick, "a"), await _trigger(quick, "b"), await _trigger(quick, "c")])
    before, edited, after = runs.values()
    await _queue(database, before, "dts_now() - interval '1 hour'")
    await _queue(database, edited, "dts_now() - interval '1 hour'")
    async with following(quick) as seen:
        await _queue(database, after)
        await until(lambda: seen.states(after) == ["queued"])
        for task, run in runs.items():
            if run == edited:
                await quick.request("PATCH", f"/api/tasks/{task}", {"priority": 9})
            else:
                await quick.post(f"/api/tasks/{task}/pause")
        for run in (before, edited, after):
            await _told(seen, run, "pending")
    assert quick.context.feed._queued.keys().isdisjoint(map(UUID, runs.values()))


@pytest.mark.usefixtures("long_ago")
async def test_a_run_that_is_retried_at_one_api_is_told_by_every_other(
    quick: Client, worker: FakeWorker, database: Database, redis_url: str
) -> None:
    tasks = [await quick.create(name) for name in "abc"]
    retried, many, replayed = (task["last_run"]["id"] for task in tasks)
    for run in (retried, many, replayed):
        await worker.end(await worker.claim(run), "dead_letter", reason="exit:1")
    async with running_api(database, redis_url) as other, following(quick) as seen:
        await other.post(f"/api/runs/{retried}/retry")
        await _told(seen, retried, "pending")
        await other.post("/api/runs/retry", {"state": "dead_letter", "task_id": tasks[1]["id"]})
        await _told(seen, many, "pending")
        await other.post("/api/dead-letter/replay", {"limit": 5})
        await _told(seen, replayed, "pending")


async def test_a_run_that_ends_and_is_retried_within_one_look_is_told_as_it_is_then(
    quick: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (await quick.create())["last_run"]["id"]
    feed, changes = quick.context.feed, quick.context.changes
    read = changes.runs
    async with following(quick) as seen:

        async def runs(since: datetime, limit: int) -> list[Change]:
            monkeypatch.undo()
            await quick.post(f"/api/runs/{run}/cancel")
            found = await read(since, limit)
            await quick.post(f"/api/runs/{run}/retry")
            await until(lambda: feed._revived)
            return found

        monkeypatch.setattr(changes, "runs", runs)
        await _told(seen, run, "pending")
        assert seen.states(run) == ["pending"]


async def test_what_a_feed_remembers_of_queued_and_retried_runs_is_bounded(
    quick: Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_WATCHED", 3)
    feed = quick.context.feed
    feed.revived(IDS.one().bytes)
    assert not feed._revived, "nobody listens"
    async with following(quick) as seen:
        for name in "abcde":
            run = (await quick.create(name))["last_run"]["id"]
            await _queue(database, run)
            await _told(seen, run, "queued")
        assert list(feed._queued)[-1] == UUID(run)
        assert len(feed._queued) == 3
        monkeypatch.setattr(feed_module, "_AT_ONCE", 100)
        for _ in range(5):
            feed.revived(b"".join(run_id.bytes for run_id in IDS.take(60)))
        assert len(feed._revived) == 120
        await until(lambda: ("gap", {"reason": "too_many"}) in seen.messages)
        assert not feed._revived
    await until(lambda: not feed._queued)


@pytest.mark.parametrize("last_id", ["1", "999999999999999999"])
async def test_a_place_that_is_too_far_back_or_none_at_all_is_a_gap(quick: Client, last_id: str) -> None:
    async with following(quick, last_id=last_id) as seen:
        await until(lambda: seen.messages == [("gap", {"reason": "too_old"})])


async def test_too_many_changes_are_a_gap_and_no_memory(quick: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_AT_ONCE", 3)
    monkeypatch.setattr(module, "_REPLAYED", 3)
    async with following(quick) as seen:
        before = seen.last_id
        await quick.post("/api/tasks/batch", [{"name": "a", "command": "true"}] * 5)
        await until(lambda: ("gap", {"reason": "too_many"}) in seen.messages)
    async with following(quick, last_id=before) as again:
        await until(lambda: again.messages[:1] == [("gap", {"reason": "too_many"})])


async def test_a_client_that_is_too_slow_has_a_gap_and_goes_on(quick: Client) -> None:
    feed = quick.context.feed
    async with following(quick) as seen:
        seen.hold = anyio.Event()
        while feed.head < 12_000:
            feed._tell([feed_module.Event(None, None, None, b": x\n\n")] * 1000)
            await anyio.lowlevel.checkpoint()
        seen.hold.set()
        await until(lambda: ("gap", {"reason": "too_slow"}) in seen.messages)
        run = (await quick.create())["last_run"]["id"]
        await until(lambda: seen.states(run))


async def test_a_slow_client_whose_credentials_end_ends_alone(closed: Closed) -> None:
    feed = closed.api.context.feed
    viewer, other = await closed.key("viewer"), await closed.key("editor")
    assert viewer.key is not None
    async with following(closed.api, key=viewer.key) as slow, following(closed.api, key=other.key) as seen:
        slow.hold = anyio.Event()
        feed._tell([feed_module.Event(None, None, None, b": first\n\n")])
        await until(lambda: b": first" in seen.text)
        await closed.api.context.credentials.revoked(viewer.key.removeprefix(keys.PREFIX).partition(".")[0])
        await until(lambda: slow.complete)
        feed._tell([feed_module.Event(None, None, None, b": second\n\n")])
        slow.hold.set()
        await until(lambda: slow.ended)
        feed._tell([feed_module.Event(None, None, None, b": third\n\n")])
        await until(lambda: b": third" in seen.text)
    assert not slow.refused


async def test_a_stream_that_cannot_be_sent_to_ends_alone(quick: Client) -> None:
    feed = quick.context.feed

    async def refuse(message: Any) -> None:
        raise RuntimeError(message["type"])

    async with following(quick) as broken:
        (client,) = feed._clients
        client.send = refuse
        async with following(quick) as seen:
            feed._tell([feed_module.Event(None, None, None, b": first\n\n")])
            await until(lambda: broken.ended)
            feed._tell([feed_module.Event(None, None, None, b": second\n\n")])
            await until(lambda: b": second" in seen.text)


async def test_a_client_sees_what_it_asked_for_and_nothing_of_other_namespaces(
    quick: Client, worker: FakeWorker, database: Database
) -> None:
    task = await quick.create("mine", schedule="@hourly")
    async with following(quick, f"kind=run&task_id={task['id']}") as narrow, following(quick) as wide:
        other = (await quick.create("other"))["last_run"]["id"]
        async with database.session() as connection:
            await connection.execute("UPDATE runs SET namespace = 'foreign' WHERE id = $1", other)
        mine = (await quick.post(f"/api/tasks/{task['id']}/trigger")).json["id"]
        await until(lambda: narrow.states(mine))
        await until(lambda: wide.states(mine))
        await worker.end(await worker.claim(other))
        await worker.end(await worker.claim(mine))
        await until(lambda: "completed" in narrow.states(mine) and "completed" in wide.states(mine))
    assert {data["id"] for _, data in narrow.messages} == {mine}
    assert "completed" not in wide.states(other)


async def test_silence_is_broken_and_a_stop_sends_everybody_home(quick: Client) -> None:
    async with following(quick) as seen:
        await until(lambda: b": still here" in seen.text)
        quick.context.stopping.set()
        await until(lambda: seen.ended)


async def test_while_nobody_listens_nothing_is_read(quick: Client) -> None:
    async with following(quick):
        pass
    feed = quick.context.feed
    await until(lambda: feed._since is None)
    position = feed.position
    feed.wake.set()
    await quick.create()
    assert feed.position == position


@pytest.mark.parametrize(("query", "status"), [("kind=x", 422), ("kind=", 422), ("task_id=1", 422), ("x=1", 400)])
async def test_what_cannot_be_asked_is_refused(quick: Client, query: str, status: int) -> None:
    assert (await quick.get(f"/api/events/stream?{query}")).status == status


async def test_an_id_of_another_stream_is_refused(quick: Client) -> None:
    assert (await quick.get("/api/events/stream", headers={"last-event-id": "1:2"})).status == 400
