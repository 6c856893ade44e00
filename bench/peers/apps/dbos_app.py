"""DBOS: durable workflows on PostgreSQL, one per piece of work, with the command as its step."""

from __future__ import annotations

import sys
import threading

import work
from dbos import DBOS, DBOSClient, DBOSConfig

config: DBOSConfig = {"name": "bench", "system_database_url": work.DATABASE_URL, "log_level": "ERROR"}
VERSION = "bench"


def serve() -> None:
    """Be a worker."""
    import os

    DBOS(config={**config, "application_version": VERSION, "executor_id": os.environ.get("BENCH_COPY", "0")})

    @DBOS.step(name="step")
    def step(index: int) -> None:
        work.execute(index)

    @DBOS.workflow(name="execute")
    def execute(index: int) -> None:
        step(index)

    DBOS.launch()
    DBOS.register_queue("bench", worker_concurrency=32, polling_interval_sec=0.1)
    threading.Event().wait()


def setup() -> None:
    """Make its tables, before anybody submits."""
    DBOS(config=config)
    DBOS.launch()
    DBOS.destroy()


def submit() -> None:
    """Submit through the client for programs that are not the application itself."""
    client = DBOSClient(system_database_url=work.DATABASE_URL)

    def send(index: int) -> None:
        client.enqueue({"queue_name": "bench", "workflow_name": "execute", "app_version": VERSION}, index)

    def send_many(indices: range) -> None:
        for index in indices:
            send(index)

    work.main(send, send_many)
    client.destroy()


if __name__ == "__main__":
    {"serve": serve, "setup": setup}.get(sys.argv[1], submit)()
