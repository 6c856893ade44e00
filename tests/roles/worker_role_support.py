"""A worker role in this process, on real servers, and tasks for it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import anyio

from scheduler.broker import Broker
from scheduler.domain.clock import SystemClock
from scheduler.domain.run import TERMINAL
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.health import Health
from scheduler.service import Service
from scheduler.store.database import Database
from scheduler.store.intake import Intake, NewTask
from scheduler.worker.role import run as run_role
from scheduler.worker.settings import WorkerSettings
from tests.support import until
from tests.support.rows import IDS, run_row


class Works:
    """A running worker: `stop` makes it drain, `ended` says that it has."""

    def __init__(self, database: Database, broker: Broker, intake: Intake, health: Health) -> None:
        self.health = health
        self.database = database
        self.broker = broker
        self.intake = intake
        self.stop = anyio.Event()
        self.ended = anyio.Event()

    async def submit(self, command: str | list[str], *, push: bool = True, **fields: Any) -> UUID:
        """Create a task and offer its run; return the run's id."""
        spec = TaskSpec(name="task", command=command, **fields)
        task_id, run_id = IDS.take(2)
        new = NewTask(task_id, run_id, "default", "test", spec, encode_spec(spec), (), True)
        created = await self.intake.create(new)
        assert created.queued is not None
        if push:
            await self.broker.push([created.queued])
        return run_id

    async def ended_row(self, run_id: UUID, seconds: float = 20.0) -> Any:
        """Wait for the run's end and return its row."""

        async def over() -> Any:
            row = await run_row(self.database, run_id)
            return row if row["state"] in TERMINAL else None

        return await until(over, seconds, f"the end of {run_id}")

    async def row_when(self, run_id: UUID, state: str) -> Any:
        async def there() -> Any:
            row = await run_row(self.database, run_id)
            return row if row["state"] == state else None

        return await until(there, 20.0, f"{run_id} to be {state}")

    async def run(self, command: str | list[str], **fields: Any) -> Any:
        return await self.ended_row(await self.submit(command, **fields))

    async def query(self, sql: str, *args: object) -> Any:
        async with self.database.session() as connection:
            return await connection.fetch(sql, *args)

    async def output(self, run_id: UUID) -> bytes:
        rows = await self.query("SELECT data FROM output_chunks WHERE run_id = $1 ORDER BY attempt, position", run_id)
        return b"".join(row["data"] for row in rows)


@asynccontextmanager
async def worker(database: Database, broker: Broker, **settings: Any) -> AsyncIterator[Works]:
    """Run a worker until the block ends."""
    clock = SystemClock()
    health = Health(clock)
    intake = Intake(database)
    works = Works(database, broker, intake, health)

    async def role() -> None:
        values = {"concurrency": 4, "drain_timeout": 5.0} | settings
        await run_role(
            database=database,
            broker=broker,
            clock=clock,
            health=health,
            stop=works.stop,
            settings=WorkerSettings(**values),
        )
        works.ended.set()

    directory = os.open(".", os.O_RDONLY)  # a worker has its own, and this process is not only a worker
    try:
        async with Service("test", health=health) as service:
            service.start("intake", intake.run)
            service.start("broker", broker.run, health)
            service.start("worker", role)
            yield works
            works.stop.set()
            with anyio.fail_after(20):
                await works.ended.wait()
    finally:
        os.fchdir(directory)
        os.close(directory)
