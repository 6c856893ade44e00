"""Recurring tasks and leaders for tests of the scheduler role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio

from scheduler.broker import Broker
from scheduler.control import role
from scheduler.control.leading import Leading
from scheduler.control.settings import CONNECTIONS, ControlSettings
from scheduler.domain.clock import SystemClock
from scheduler.domain.task import TaskSpec, encode_spec
from scheduler.health import Health
from scheduler.store.database import Database
from scheduler.store.dispatch import Dispatch
from scheduler.store.intake import Intake, NewTask
from scheduler.store.terms import Terms, leader_settings
from tests.support.rows import IDS

QUICK = ControlSettings(lock_ttl=1.0, reconcile_every=0.1, stale_after=0.2, poll=0.2)


def recurring(
    name: str, schedule: str = "* * * * *", *, next_fire_at: datetime, cursor: datetime | None = None, **fields: Any
) -> NewTask:
    """A recurring task that runs /bin/true and is next planned at `next_fire_at`."""
    spec = TaskSpec(name=name, command=["/bin/true"], schedule=schedule, **fields)
    cursor = cursor or next_fire_at - timedelta(seconds=1)
    return NewTask(
        IDS.one(), None, "default", "test", spec, encode_spec(spec), fire_cursor=cursor, next_fire_at=next_fire_at
    )


def minute(minutes_ago: int = 0) -> datetime:
    """The beginning of this minute, or of an earlier one."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)


async def add(database: Database, *tasks: NewTask) -> list[UUID]:
    """Create tasks; return their ids."""
    return [created.task_id for created in await Intake(database).create_batch([tasks])]


async def lead(database: Database) -> int:
    """Take the term and return its epoch, without anything that would use it."""
    terms = Terms(database)
    reading, _ = await terms.read()
    epoch = await terms.take(reading, IDS.one(), host="test", pid=1)
    assert epoch is not None
    return epoch


def leading(database: Database, broker: Broker, epoch: int, **settings: Any) -> Leading:
    """What a duty of a leader works with, to take its steps by hand."""
    clock = SystemClock()
    return Leading(
        epoch,
        ControlSettings(**settings),
        broker,
        Dispatch(database),
        IDS,
        clock,
        Health(clock),
        lambda: None,
        lambda: None,
    )


class Scheduler:
    """A scheduler role in this process."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self.database = database
        self.broker = broker
        self.health = Health(SystemClock())
        self.stop = anyio.Event()
        self.done = anyio.Event()

    @property
    def leads(self) -> bool:
        term = self.health.snapshot().get("scheduler.term")
        return term is not None and term.detail.startswith("leading")

    async def run(self, settings: ControlSettings) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.broker.run, self.health)
            await role.run(
                database=self.database,
                broker=self.broker,
                clock=SystemClock(),
                health=self.health,
                stop=self.stop,
                settings=settings,
            )
            self.done.set()
            group.cancel_scope.cancel()


@asynccontextmanager
async def scheduler(
    database_url: str, redis_url: str, settings: ControlSettings = QUICK, *, name: str = "scheduler"
) -> AsyncIterator[Scheduler]:
    """Run a scheduler role for as long as the block lasts, on connections of its own."""
    database = await Database.connect(
        database_url, name=name, max_size=CONNECTIONS, settings=leader_settings(settings.lock_ttl)
    )
    broker = Broker.connect(redis_url, installation="test", name=name, clock=SystemClock())
    made = Scheduler(database, broker)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(made.run, settings)
            try:
                yield made
            finally:
                made.stop.set()
                with anyio.CancelScope(shield=True), anyio.move_on_after(10):
                    await made.done.wait()
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await broker.close()
            await database.close()
