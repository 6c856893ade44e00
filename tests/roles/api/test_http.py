"""The role as it is run: over a socket, from bind to drain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import anyio
import httpx2
import pytest

from scheduler.api import ApiSettings, NotLoopback, TlsSettings, serve
from scheduler.api.listening import bind
from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.health import Health
from scheduler.store.database import Database
from scheduler.store.outputs import Outputs
from scheduler.store.runs import OutputChunk
from tests.roles.api.support import FakeWorker
from tests.support.cluster.links import Link
from tests.support.line import hurry_lookout
from tests.support.locks import waiting_for_locks
from tests.support.waiting import until


class Running:
    def __init__(self, port: int, stop: anyio.Event) -> None:
        self.port = port
        self.stop = stop
        self.url = f"http://127.0.0.1:{port}"


@asynccontextmanager
async def serving(
    database: Database, redis_url: str, tls: TlsSettings | None = None, drain_timeout: float = 3.0
) -> AsyncIterator[Running]:
    clock = SystemClock()
    health = Health(clock)
    stop = anyio.Event()
    broker = Broker.connect(redis_url, installation="test", name="api-http", clock=clock)

    async def run(*, task_status: anyio.abc.TaskStatus[int]) -> None:
        await serve(
            database=database,
            broker=broker,
            clock=clock,
            health=health,
            stop=stop,
            settings=ApiSettings(development=True, port=0, drain_timeout=drain_timeout, log_poll=0.05, tls=tls),
            task_status=task_status,
        )

    async with broker, anyio.create_task_group() as group:
        yield Running(await group.start(run), stop)
        stop.set()


async def test_a_task_is_submitted_over_http(database: Database, redis_url: str) -> None:
    async with serving(database, redis_url) as api, httpx2.AsyncClient(base_url=api.url) as client:
        created = await client.post("/api/tasks", json={"name": "a", "command": "true"})
        assert created.status_code == 201
        assert (await client.get(created.headers["location"])).json()["name"] == "a"
        assert (await client.delete("/api/tasks/x")).status_code == 404
        assert (await client.head("/health/live")).status_code == 200


async def test_over_http_2_too_what_changes_something_needs_no_body(database: Database, redis_url: str) -> None:
    async with (
        serving(database, redis_url) as api,
        httpx2.AsyncClient(base_url=api.url, http1=False, http2=True) as client,
    ):
        created = await client.post("/api/tasks", json={"name": "a", "command": "true", "schedule": "@daily"})
        assert (created.http_version, created.status_code) == ("HTTP/2", 201)
        path = created.headers["location"]
        assert (await client.post(f"{path}/trigger")).status_code == 201
        assert (await client.delete(f"{path}?cascade=cancel")).status_code == 204


async def test_a_client_that_sends_too_much_still_reads_the_answer(database: Database, redis_url: str) -> None:
    async with serving(database, redis_url) as api, httpx2.AsyncClient(base_url=api.url, timeout=30) as client:
        answer = await client.post(
            "/api/tasks", content=b" " * (11 * 1024 * 1024), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 413
        assert (await client.get("/health/live")).status_code == 200


async def test_a_stop_lets_requests_finish_and_ends_streams(
    database: Database, redis_url: str, worker: FakeWorker
) -> None:
    with anyio.fail_after(20):
        async with serving(database, redis_url) as api, httpx2.AsyncClient(base_url=api.url, timeout=30) as client:
            created = (await client.post("/api/tasks", json={"name": "a", "command": "true"})).json()
            run_id = created["last_run"]["id"]
            await worker.claim(run_id)
            async with client.stream("GET", f"/api/runs/{run_id}/logs?follow=true") as stream:
                lines = stream.aiter_lines()
                assert await anext(lines) == "retry: 1000"
                api.stop.set()
                assert [line async for line in lines if line] == []


async def test_a_stop_waits_no_longer_than_the_drain_timeout_for_a_client_that_does_not_read(
    database: Database, redis_url: str, worker: FakeWorker
) -> None:
    piece, pieces = b"x" * 65_536, 256  # 16 MiB: more than the sockets between them hold
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        with anyio.fail_after(20):
            async with serving(database, redis_url, drain_timeout=0.5) as api:
                async with httpx2.AsyncClient(base_url=api.url) as submitter:
                    created = (await submitter.post("/api/tasks", json={"name": "a", "command": "true"})).json()
                run_id = created["last_run"]["id"]
                claim = await worker.claim(run_id)
                await Outputs(database).append(
                    UUID(run_id),
                    claim.attempt,
                    [OutputChunk(n * len(piece), "stdout", piece) for n in range(pieces)],
                )
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, ("127.0.0.1", api.port))
                request = f"GET /api/runs/{run_id}/logs HTTP/1.1\r\nHost: localhost\r\n\r\n"
                await loop.sock_sendall(client, request.encode())
                assert (await loop.sock_recv(client, 12)).endswith(b"200")
                asked_to_stop = loop.time()
                api.stop.set()
            assert loop.time() - asked_to_stop < 5


async def test_a_stop_waits_for_no_statement_that_is_never_answered(
    database: Database, far_url: str, link: Link, redis_url: str
) -> None:
    far = await Database.connect(far_url, name="far", max_size=8)
    hurry_lookout(far, far_url)
    with anyio.fail_after(20):
        async with database.transaction() as other:
            await other.target.execute("LOCK TABLE namespaces IN ACCESS EXCLUSIVE MODE")
            async with serving(far, redis_url, drain_timeout=60.0) as api:
                await until(partial(waiting_for_locks, database), what="a loop of the api waits for the namespaces")
                link.cut()
                api.stop.set()
        await far.close()


async def test_many_at_once_share_commits(database: Database, redis_url: str) -> None:
    async with serving(database, redis_url) as api, httpx2.AsyncClient(base_url=api.url, timeout=30) as client:
        ids = []

        async def submit(n: int) -> None:
            answer = await client.post("/api/tasks", json={"name": f"t{n}", "command": "true"})
            ids.append(answer.json()["id"])

        async with anyio.create_task_group() as group:
            for n in range(100):
                group.start_soon(submit, n)
        assert len(set(ids)) == 100


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_the_server_refuses_to_listen_to_the_network(host: str) -> None:
    with pytest.raises(NotLoopback, match="no authentication"):
        bind(host, 0, development=True)


def test_an_address_that_is_taken_is_an_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", other.getsockname()[1], development=True)
