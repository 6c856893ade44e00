"""The servers that peers run on: PostgreSQL and Valkey from the same wheels as our own, set up in the same way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from scheduler.embedded.datadir import DataDir
from scheduler.embedded.plan import Plan
from scheduler.embedded.servers import run_servers


@asynccontextmanager
async def start_servers(data: Path) -> AsyncIterator[Plan]:
    """Run both on a fresh directory until the block is left; their addresses are in what is returned."""
    failure: Exception | None = None
    with DataDir(data) as directory:
        plan = Plan(directory, task_user="", database_url="", redis_url="")
        async with anyio.create_task_group() as group:
            await group.start(run_servers, plan, _silent, name="servers")
            try:
                yield plan
            except Exception as error:  # noqa: BLE001 - raised again outside of the group, which would wrap it
                failure = error
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _silent(_: str) -> None:
    pass
