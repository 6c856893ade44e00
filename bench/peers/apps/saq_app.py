"""SAQ, on Redis or on PostgreSQL: its queue is chosen by `$BENCH_SAQ`."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import work
from saq import Queue

if os.environ.get("BENCH_SAQ") == "postgres":
    queue = Queue.from_url(work.DATABASE_URL)
else:
    from redis.asyncio import Redis
    from saq.queue.redis import RedisQueue

    queue = RedisQueue(Redis.from_url(work.REDIS_URL))  # Queue.from_url knows no unix sockets


async def execute(ctx: dict[str, Any], *, index: int) -> None:
    await work.execute_async(index)


settings = {"queue": queue, "functions": [execute], "concurrency": 10}


async def send(index: int) -> None:
    await queue.enqueue("execute", index=index, ttl=60, timeout=60, retries=3)


async def send_many(indices: range) -> None:
    for start in range(0, len(indices), 50):
        await asyncio.gather(*(send(index) for index in indices[start : start + 50]))


async def main() -> None:
    await queue.connect()
    await work.main_async(send, send_many)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main())
