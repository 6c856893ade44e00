"""Procrastinate on PostgreSQL, told of new jobs by LISTEN."""

from __future__ import annotations

import asyncio

import procrastinate
import work

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=work.DATABASE_URL))


@app.task(name="execute", pass_context=False)
async def execute(index: int) -> None:
    await work.execute_async(index)


@app.periodic(cron="* * * * *")
@app.task(name="retry_stalled", queueing_lock="retry_stalled", pass_context=True)
async def retry_stalled(context: procrastinate.JobContext, timestamp: int) -> None:
    """Give jobs of dead workers back: its documentation asks for such a task, and proposes every ten minutes."""
    for job in await app.job_manager.get_stalled_jobs():
        await app.job_manager.retry_job(job)


async def send(index: int) -> None:
    await execute.defer_async(index=index)


async def send_many(indices: range) -> None:
    for start in range(0, len(indices), 1000):
        await execute.batch_defer_async(*({"index": index} for index in indices[start : start + 1000]))


async def main() -> None:
    async with app.open_async():
        await work.main_async(send, send_many)


if __name__ == "__main__":
    asyncio.run(main())
