"""PgQueuer on PostgreSQL through asyncpg, its tables durable as they are by default."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

import asyncpg
import work
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries


async def create() -> PgQueuer:
    """Return a worker."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(work.DATABASE_URL)))

    @queuer.entrypoint("execute")
    async def execute(job: Job) -> None:
        assert job.payload is not None
        await work.execute_async(int(job.payload))

    return queuer


async def serve() -> None:
    """Do what `pgq run` does with its defaults; the command itself fails in this release while it sets up its log."""
    await (await create()).run(
        dequeue_timeout=timedelta(seconds=30), batch_size=int(os.environ.get("BENCH_BATCH", "10"))
    )


async def main() -> None:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(work.DATABASE_URL)))

    async def send(index: int) -> None:
        await queries.enqueue("execute", b"%d" % index)

    async def send_many(indices: range) -> None:
        for start in range(0, len(indices), 1000):
            part = indices[start : start + 1000]
            await queries.enqueue(["execute"] * len(part), [b"%d" % index for index in part], [0] * len(part))

    await work.main_async(send, send_many)


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else main())
