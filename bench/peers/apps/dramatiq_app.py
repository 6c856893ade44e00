"""Dramatiq on Redis: processes of threads, its defaults otherwise."""

from __future__ import annotations

import dramatiq
import work
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=work.REDIS_URL))


@dramatiq.actor
def execute(index: int) -> None:
    work.execute(index)


def send_many(indices: range) -> None:
    for index in indices:
        execute.send(index)


if __name__ == "__main__":
    work.main(execute.send, send_many)
