"""Taskiq on Redis streams, which it recommends where work must survive its worker."""

from __future__ import annotations

import asyncio

import work
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(work.REDIS_URL, consumer_id="0", idle_timeout=60_000)


@broker.task(task_name="execute")
async def execute(index: int) -> None:
    await work.execute_async(index)


async def send_many(indices: range) -> None:
    for index in indices:
        await execute.kiq(index)


async def main() -> None:
    await broker.startup()
    await work.main_async(execute.kiq, send_many)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
