"""Python client of the HTTP API, blocking and asynchronous.

    from scheduler.client import Client, TaskSpec

    with Client("http://127.0.0.1:8080") as client:
        task = client.submit(TaskSpec(name="hello", command=["echo", "hello"]))
        run = client.wait(task.last_run.id)

`AsyncClient` has the same methods, awaited. Tasks that want to go on after a lost worker where they were use
`scheduler.client.checkpoint`, which imports nothing of all this: names here are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scheduler.client.access import Access
    from scheduler.client.asynchronous import AsyncClient
    from scheduler.client.errors import (
        ApiError,
        BadAnswer,
        ClientError,
        Conflict,
        Forbidden,
        InvalidRequest,
        NotAuthenticated,
        NotFound,
        Overloaded,
        PartlySubmitted,
        PreconditionFailed,
        Problem,
        Unreachable,
        WaitTimeout,
    )
    from scheduler.client.logs import LogAttempt, LogChunk, LogEvent, LogGap
    from scheduler.client.retry import NO_RETRIES, PATIENT, RetryPolicy
    from scheduler.client.sync import Client
    from scheduler.domain.run import Attempt, Run
    from scheduler.domain.task import TaskSpec
    from scheduler.wire.backfills import Backfilled
    from scheduler.wire.dead_letters import DeadLetter, Decided, Selection
    from scheduler.wire.fleet import Queue, Worker
    from scheduler.wire.runs import Cancelled, Explanation
    from scheduler.wire.tasks import Created, Fire, PlannedFire, Task

DEFAULT_SERVER = "http://127.0.0.1:8080"

_HOME = {
    "client.access": ["Access"],
    "client.asynchronous": ["AsyncClient"],
    "client.errors": [
        "ApiError",
        "BadAnswer",
        "ClientError",
        "Conflict",
        "Forbidden",
        "InvalidRequest",
        "NotAuthenticated",
        "NotFound",
        "Overloaded",
        "PartlySubmitted",
        "PreconditionFailed",
        "Problem",
        "Unreachable",
        "WaitTimeout",
    ],
    "client.logs": ["LogAttempt", "LogChunk", "LogEvent", "LogGap"],
    "client.retry": ["NO_RETRIES", "PATIENT", "RetryPolicy"],
    "client.sync": ["Client"],
    "domain.run": ["Attempt", "Run"],
    "domain.task": ["TaskSpec"],
    "wire.backfills": ["Backfilled"],
    "wire.dead_letters": ["DeadLetter", "Decided", "Selection"],
    "wire.fleet": ["Queue", "Worker"],
    "wire.runs": ["Cancelled", "Explanation"],
    "wire.tasks": ["Created", "Fire", "PlannedFire", "Task"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "DEFAULT_SERVER",
    "NO_RETRIES",
    "PATIENT",
    "Access",
    "ApiError",
    "AsyncClient",
    "Attempt",
    "Backfilled",
    "BadAnswer",
    "Cancelled",
    "Client",
    "ClientError",
    "Conflict",
    "Created",
    "DeadLetter",
    "Decided",
    "Explanation",
    "Fire",
    "Forbidden",
    "InvalidRequest",
    "LogAttempt",
    "LogChunk",
    "LogEvent",
    "LogGap",
    "NotAuthenticated",
    "NotFound",
    "Overloaded",
    "PartlySubmitted",
    "PlannedFire",
    "PreconditionFailed",
    "Problem",
    "Queue",
    "RetryPolicy",
    "Run",
    "Selection",
    "Task",
    "TaskSpec",
    "Unreachable",
    "WaitTimeout",
    "Worker",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"scheduler.{module}"), name)
