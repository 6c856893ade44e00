"""RQ: a pool of workers, each of which forks for every job."""

from __future__ import annotations

from typing import Any

import work
from redis import Redis
from rq import Queue, Retry

KEPT: dict[str, Any] = {"result_ttl": 0, "retry": Retry(max=3)}
queue = Queue("default", connection=Redis.from_url(work.REDIS_URL))


def send(index: int) -> None:
    queue.enqueue("work.execute", index, **KEPT)


def send_many(indices: range) -> None:
    for start in range(0, len(indices), 1000):
        part = indices[start : start + 1000]
        queue.enqueue_many([Queue.prepare_data("work.execute", (index,), **KEPT) for index in part])


if __name__ == "__main__":
    work.main(send, send_many)
