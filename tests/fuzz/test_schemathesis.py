"""The whole OpenAPI document is held against the running API: requests made of it, right and wrong ones.

No answer is a 5xx, none has a status, a content type or a body that the document does not tell: of an API that asks
nobody who they are, and, with fewer requests, of one that does, whoever asks. `DTS_FUZZ_EXAMPLES` says how many
requests each operation gets (`tox -e fuzz`: many).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
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
from scheduler.domain.access import GRANTS, OPEN, Role
from scheduler.domain.clock import SystemClock
from scheduler.health import Health
from scheduler.service import Service
from scheduler.store.database import Database
from scheduler.store.keys import Keys
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
permissions = {(route.method, route.path): route.permission for route in ROUTES}
generated = partial(
    settings,
    deadline=None,
    database=None,
    derandomize="DTS_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)


async def _serve(
    database_url: str, redis_url: str, api: ApiSettings, *, task_status: anyio.abc.TaskStatus[Any]
) -> None:
    clock = SystemClock()
    health = Health(clock)
    stop = anyio.Event()
    database = await Database.connect(database_url, name="fuzz", min_size=1, max_size=8)
    known["/api/workers/"] = [str(await add_worker(database))]
    keys = {role: await _key(database, role) for role in ("admin", "viewer")}
    broker = Broker.connect(redis_url, installation="fuzz", name="fuzz", clock=clock)
    run = partial(serve, database=database, broker=broker, clock=clock, health=health, stop=stop)
    async with broker, Service("broker", health=health) as service, anyio.create_task_group() as group:
        service.start("listen", broker.run, health)
        task_status.started((await group.start(partial(run, settings=api)), stop, keys))
    await database.close()


async def _key(database: Database, role: Role) -> str:
    made = await Keys(database).create(
        database, name=role, role=role, permissions=(), namespaces=None, expires_at=None, actor="fuzz"
    )
    assert made is not None
    return made.key


@contextmanager
def _running(servers: Servers, api: ApiSettings) -> Iterator[tuple[str, dict[str, str]]]:
    """A running API with a few tasks and runs in it, without workers that would run them, and keys for it by role."""
    with servers.database() as database_url, start_blocking_portal("asyncio") as portal:
        future, (port, stop, keys) = portal.start_task(_serve, database_url, servers.redis_url(0), api)
        url = f"http://127.0.0.1:{port}"
        _fill(url, {} if api.development else _bearer(keys["admin"]))
        yield url, keys
        portal.call(stop.set)
        future.result()
    telemetry.set_level("warning")


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def url(servers: Servers) -> Iterator[str]:
    """An API that asks nobody who they are."""
    with _running(servers, ApiSettings(port=0, development=True)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def closed(servers: Servers) -> Iterator[tuple[str, dict[str, str]]]:
    """An API that asks for credentials, and keys by role."""
    with _running(servers, ApiSettings(port=0)) as running:
        yield running


def _fill(url: str, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=url, headers=headers) as client:
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
@generated(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.generate])
def test_every_operation_answers_as_documented(case: Any, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=20, headers={"Host": "localhost"})


@schema.parametrize()
@generated(max_examples=max(1, EXAMPLES // 5), phases=[Phase.generate])
def test_every_operation_answers_as_documented_whoever_asks(case: Any, closed: tuple[str, dict[str, str]]) -> None:
    url, keys = closed
    permission = permissions.get(
        (case.method.upper(), case.operation.path), OPEN
    )  # methods that are none are tried too
    for who in ("admin", "viewer", None):
        key = keys[who] if who is not None else keys["admin"][:-4] + "AAAA"
        answer = case.call(base_url=url, timeout=20, headers=_bearer(key))
        case.validate_response(answer, checks=CHECKS, headers=_bearer(key))
        if permission != OPEN and (who is None or permission not in GRANTS[who]):
            assert answer.status_code >= 400, (who, permission, answer.status_code)


def test_what_has_no_end_begins_as_documented(url: str) -> None:
    with httpx2.stream("GET", url + ENDLESS, timeout=10) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next(answer.iter_lines()).startswith("retry: ")
