"""Tasks, workers and outcomes for tests that talk to the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import anyio

from scheduler.domain.clock import SystemClock
from scheduler.domain.ids import IdSource
from scheduler.domain.run import Claim, Outcome
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.store.database import Database
from scheduler.store.edges import Edge
from scheduler.store.execution import Executions, Settled
from scheduler.store.intake import Created, Intake, NewTask

IDS = IdSource(SystemClock())
QUICK_LEASE = 1.5
"""Seconds that the lease of a worker lasts which `add_worker` makes."""


def new_task(name: str = "task", edges: Sequence[Edge] = (), *, straight: bool = True, **fields: Any) -> NewTask:
    """A one-off task that runs /bin/true."""
    spec = TaskSpec(name=name, command=["/bin/true"], **fields)
    task_id, run_id = IDS.take(2)
    return NewTask(task_id, run_id, "default", "test", spec, encode_spec(spec), edges, straight)


def after(upstream: NewTask, condition: Any = "success") -> Edge:
    """A dependency on the run of another new task."""
    return Edge(upstream.task_id, upstream.run_id, None, condition)


async def add_worker(
    database: Database, *, state: str = "live", worker_id: UUID | None = None, lease: float = QUICK_LEASE
) -> UUID:
    """A worker row with a lease."""
    worker_id = worker_id or IDS.one()
    async with database.session() as connection:
        await connection.execute(
            "INSERT INTO workers (id, name, host, pid, queues, executors, containment, slots, version, lease, state,"
            " registered_at) VALUES ($1, 'w', 'host', 1, '{default}', '{process}', 'session', 8, '0', $3, $2, now())",
            worker_id,
            state,
            lease,
        )
        await connection.execute("INSERT INTO worker_leases (worker_id, renewed_at) VALUES ($1, now())", worker_id)
    return worker_id


async def count(database: Database, table: str) -> int:
    """How many rows a table has."""
    async with database.session() as connection:
        return await connection.fetchval(f"SELECT count(*) FROM {table}")


def outcome(claim: Claim, state: Any = "completed", **fields: Any) -> Outcome:
    """What a worker would report of a claim."""
    attempt_outcome = {"completed": "completed", "cancelled": "cancelled"}.get(state, "failed")
    values: dict[str, Any] = {
        "run_id": claim.run_id,
        "fence": claim.fence,
        "state": state,
        "attempt_outcome": attempt_outcome,
        "reason": "exit:0" if state == "completed" else "exit:1",
        "exit_code": 0 if state == "completed" else 1,
        "started_at": claim.started_at,
        "finished_at": claim.started_at,
    }
    return Outcome(**(values | fields))


async def run_row(database: Database, run_id: UUID | None) -> Any:
    """The row of a run."""
    async with database.session() as connection:
        return await connection.fetchrow("SELECT * FROM runs WHERE id = $1", run_id)


class Bench:
    """An intake and one worker's executions, running; `settled` collects what ended runs set free."""

    def __init__(self, database: Database, worker_id: UUID) -> None:
        self.database = database
        self.worker_id = worker_id
        self.settled: list[Settled] = []
        self.open_lanes: list[str] = ["default"]
        self.intake = Intake(database)
        self.executions = Executions(
            database, IDS, worker_id, lanes_open=lambda: self.open_lanes, on_settled=self._on_settled
        )

    async def _on_settled(self, settled: Settled) -> None:
        self.settled.append(settled)

    async def claim(self, created: Created) -> Claim:
        """Claim a run that was created as queued."""
        assert created.queued is not None
        claims = await self.executions.claim([(created.queued.run_id, created.queued.seq)])
        return claims[0]


@asynccontextmanager
async def bench(database: Database, *, lease: float = 60.0) -> AsyncIterator[Bench]:
    """Run the group commits of a Bench for as long as the block lasts. Its worker's lease is not renewed."""
    made = Bench(database, await add_worker(database, lease=lease))
    async with anyio.create_task_group() as group:
        group.start_soon(made.intake.run)
        group.start_soon(made.executions.run)
        yield made
        group.cancel_scope.cancel()
