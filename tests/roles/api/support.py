"""An API in this process: requests go straight into the ASGI application, over a real database and a real Redis."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import anyio
import msgspec

from scheduler.api.app import App
from scheduler.api.context import Context
from scheduler.api.role import follow_changes
from scheduler.api.settings import ApiSettings
from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.domain.run import Claim, Outcome
from scheduler.health import Health
from scheduler.metrics import Metrics
from scheduler.service import Service
from scheduler.store.database import Database
from scheduler.store.envelope import MasterKeys
from scheduler.store.execution import Executions, Settled
from tests.support.rows import IDS, add_worker, outcome

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()


class Answer(msgspec.Struct):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def pointers(self) -> list[str]:
        """Where a problem points."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        return [error["pointer"] for error in self.json.get("errors", [])]


class Requests:
    """What whoever can send a request can do with it."""

    async def request(self, method: str, target: str, body: Any = None, **kwargs: Any) -> Answer:
        raise NotImplementedError

    async def get(self, target: str, **kwargs: Any) -> Answer:
        return await self.request("GET", target, **kwargs)

    async def post(self, target: str, body: Any = None, **kwargs: Any) -> Answer:
        return await self.request("POST", target, body, **kwargs)

    async def create(self, name: str = "task", **fields: Any) -> Any:
        """Create a task that runs /bin/true and return it."""
        answer = await self.post("/api/tasks", {"name": name, "command": ["/bin/true"], **fields})
        assert answer.status == 201, answer.body
        return answer.json


class Client(Requests):
    """Sends requests into an ASGI application."""

    def __init__(self, app: App, context: Context) -> None:
        self.app = app
        self.context = context

    async def request(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        pieces: Sequence[bytes] | None = None,
    ) -> Answer:
        """`body` is encoded as JSON, `raw` sent as it is, `pieces` one by one."""
        chunks = list(pieces) if pieces is not None else [raw if raw is not None else b""]
        sent = {"host": "localhost"}
        if body is not None:
            chunks = [msgspec.json.encode(body)]
            sent["content-type"] = "application/json"
        sent |= headers or {}
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in sent.items()],
            "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
        }
        messages = [
            {"type": "http.request", "body": chunk, "more_body": n < len(chunks)} for n, chunk in enumerate(chunks, 1)
        ]
        start: dict[str, Any] = {}
        parts: list[bytes] = []

        async def receive() -> Any:
            if not messages:
                await anyio.sleep_forever()
            return messages.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        answer_headers = {k.decode(): v.decode("latin-1") for k, v in start["headers"]}
        return Answer(start["status"], answer_headers, b"".join(parts))

    async def run_of(self, task: Any) -> Any:
        """The newest run of a task."""
        return (await self.get(f"/api/tasks/{task['id']}/runs")).json["items"][0]


class FakeWorker:
    """Claims and ends runs as a worker does, without running anything."""

    def __init__(self, database: Database, worker_id: UUID) -> None:
        self.id = worker_id
        self._database = database
        self.executions = Executions(
            database, IDS, worker_id, lanes_open=lambda: ["default"], on_settled=self._on_settled
        )

    async def _on_settled(self, settled: Settled) -> None:
        pass

    async def claim(self, run_id: str | UUID) -> Claim:
        """Queue the run if it waits, and claim it."""
        async with self._database.session() as connection:
            seq = await connection.fetchval(
                "UPDATE runs SET state = 'queued', queued_at = now(), dispatch_seq = dispatch_seq + 1"
                " WHERE id = $1 AND state IN ('pending', 'queued') RETURNING dispatch_seq",
                UUID(str(run_id)),
            )
        (claim,) = await self.executions.claim([(UUID(str(run_id)), seq)])
        return claim

    async def end(self, claim: Claim, state: Any = "completed", **fields: Any) -> Outcome:
        """Report how a claimed run ended."""
        reported = outcome(claim, state, **fields)
        assert (await self.executions.finish(reported)).applied
        return reported


@asynccontextmanager
async def running_api(
    database: Database, redis_url: str, settings: ApiSettings | None = None, clock: SystemClock | None = None
) -> AsyncIterator[Client]:
    """An API with its background tasks, without HTTP."""
    clock = clock or SystemClock()
    health = Health(clock)
    stopping = anyio.Event()
    async with Broker.connect(redis_url, installation="test", name="api-test", clock=clock) as broker:
        context = Context.over(
            database,
            broker,
            clock,
            health,
            settings or ApiSettings(development=True, master_keys=MasterKeys(MASTER_KEY)),
            stopping=stopping,
            metrics=Metrics(),
        )
        async with Service("api", health=health) as service:
            service.start("intake", context.intake.run)
            service.start("messages", broker.run, health)
            context.offers.start(service)
            service.loop("denials", context.denials.step, wake=context.denials.wake)
            service.start("events", follow_changes, context)
            service.loop("admission", context.admission.step, wake=context.admission.wake)
            service.loop("namespaces", context.tenancy.step, wake=context.tenancy.wake)
            if context.token_keys is not None:
                service.loop("token keys", context.token_keys.step, wake=context.token_keys.wake)
            service.loop("credentials", context.credentials.step, wake=context.credentials.wake)
            yield Client(App(context), context)


@asynccontextmanager
async def running_worker(database: Database) -> AsyncIterator[FakeWorker]:
    """A registered worker whose reports are written."""
    worker = FakeWorker(database, await add_worker(database))
    async with anyio.create_task_group() as group:
        group.start_soon(worker.executions.run)
        yield worker
        group.cancel_scope.cancel()
