"""Prefect: `ready` waits for its server; `chain` and `wide` run a flow in this process and print begin and end."""

from __future__ import annotations

import os
import sys
import time
import urllib.request

from fibo import fibo
from prefect import flow, task


@task
def number(n: int, _: object = None) -> int:
    return fibo(n)


@flow
def chain(tasks: int, n: int) -> None:
    before = None
    for _ in range(tasks):
        before = number(n, before)


@flow
def wide(tasks: int, n: int) -> None:
    for future in [number.submit(n) for _ in range(tasks)]:
        future.result()


def ready() -> None:
    """Wait until the server answers."""
    while True:
        try:
            with urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/health"):
                return
        except OSError:
            time.sleep(0.1)


if __name__ == "__main__":
    kind, *sizes = sys.argv[1:]
    if kind == "ready":
        ready()
    else:
        tasks, n = map(int, sizes)
        began = time.time()
        {"chain": chain, "wide": wide}[kind](tasks, n)
        print(began, time.time())
