"""The whole OpenAPI document is held against the running API: requests made of it, right and wrong ones.

No answer is a 5xx, none has a status, a content type or a body that the document does not tell. `DTS_FUZZ_EXAMPLES`
says how many requests each operation gets (`tox -e fuzz`: many).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scheduler import telemetry
from scheduler.api import ApiSettings, serve
from scheduler.api.openapi import document
from scheduler.api.routes import ROUTES
from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.health import Health
from scheduler.service import Service
from scheduler.store.database import Database
from tests.support.rows import add_worker
from tests.support.servers import Servers

EXAMPLES = int(os.environ.get("DTS_FUZZ_EXAMPLES", "5"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ENDLESS = "/api/events/stream"

schema = schemathesis.openapi.from_dict(document(ROUTES)).exclude(path=ENDLESS)
known: dict[str, list[str]] = {}


async def _serve(database_url: str, redis_url: str, *, task_status: anyio.abc.TaskStatus[Any]) -> None:
    clock = SystemClock()
    health = Health(clock)
    stop = anyio.Event()
    database = await Database.connect(database_url, name="fuzz", min_size=1, max_size=8)
    known["/api/workers/"] = [str(await add_worker(database))]
    broker = Broker.connect(redis_url, installation="fuzz", name="fuzz", clock=clock)
    run = partial(serve, database=database, broker=broker, clock=clock, health=health, stop=stop)
    async with broker, Service("broker", health=health) as service, anyio.create_task_group() as group:
        service.start("listen", broker.run, health)
        task_status.started((await group.start(partial(run, settings=ApiSettings(port=0, development=True))), stop))
    await database.close()


@pytest.fixture(scope="module")
def url(servers: Servers) -> Iterator[str]:
    """A running API with a few tasks and runs in it, without workers that would run them."""
    with servers.database() as database_url, start_blocking_portal("asyncio") as portal:
        future, (port, stop) = portal.start_task(_serve, database_url, servers.redis_url(0))
        url = f"http://127.0.0.1:{port}"
        _fill(url)
        yield url
        portal.call(stop.set)
        future.result()
    telemetry.set_level("warning")


def _fill(url: str) -> None:
    with httpx2.Client(base_url=url) as client:
        bodies = [
            {"name": "once", "command": "true", "tags": ["a"]},
            {"name": "nightly", "command": "true", "schedule": "30 2 * * *"},
            {"name": "later", "command": "true", "delay": 3600, "queue": "q"},
        ]
        tasks = [client.post("/api/tasks", json=body).json() for body in bodies]
        client.post(f"/api/tasks/{tasks[1]['id']}/trigger")
        runs = client.get("/api/runs").json()["items"]
        client.post(f"/api/runs/{runs[-1]['id']}/cancel")
    known["/api/tasks/"] = [task["id"] for task in tasks]
    known["/api/runs/"] = [run["id"] for run in runs]


@schemathesis.hook
def map_path_parameters(context: schemathesis.HookContext, path_parameters: dict[str, Any] | None) -> Any:
    """Every second time take an id that exists: what lies behind the first look-up is asked too."""
    operation = context.operation
    for prefix, ids in known.items():
        if path_parameters and "id" in path_parameters and operation is not None and operation.path.startswith(prefix):
            chosen = random.Random(str(path_parameters["id"]))
            if chosen.random() < 0.5:
                return {**path_parameters, "id": chosen.choice(ids)}
    return path_parameters


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> Any:  # noqa: ARG001
    """NDJSON is sent as the text that it is."""
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def filter_query(context: schemathesis.HookContext, query: dict[str, Any] | None) -> bool:  # noqa: ARG001
    """A follower is answered for as long as the run goes on."""
    return not query or "follow" not in query


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="DTS_FUZZ_EXAMPLES" not in os.environ,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_operation_answers_as_documented(case: Any, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=20, headers={"Host": "localhost"})


def test_what_has_no_end_begins_as_documented(url: str) -> None:
    with httpx2.stream("GET", url + ENDLESS, timeout=10) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next(answer.iter_lines()).startswith("retry: ")
