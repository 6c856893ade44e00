"""Huey on Redis: a consumer of threads, as it recommends for work that waits."""

from __future__ import annotations

import work
from huey import RedisHuey
from redis import ConnectionPool

huey = RedisHuey("bench", connection_pool=ConnectionPool.from_url(work.REDIS_URL), results=False)


@huey.task()
def execute(index: int) -> None:
    work.execute(index)


def send_many(indices: range) -> None:
    for index in indices:
        execute(index)


if __name__ == "__main__":
    import huey_app  # a task is known by its module's name, which must be the consumer's

    work.main(huey_app.execute, huey_app.send_many)
