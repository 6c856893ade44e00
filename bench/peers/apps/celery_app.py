"""Celery on Redis: prefork workers, acknowledging late, as its documentation demands of work that must not be lost."""

from __future__ import annotations

import work
from celery import Celery

app = Celery("bench", broker=work.REDIS_URL.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host="))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.execute")
def execute(index: int) -> None:
    work.execute(index)


def send_many(indices: range) -> None:
    with app.producer_pool.acquire(block=True) as producer:
        for index in indices:
            execute.apply_async((index,), producer=producer)


if __name__ == "__main__":
    work.main(execute.delay, send_many)
