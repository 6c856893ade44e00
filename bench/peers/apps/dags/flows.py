"""Airflow's side of the flows: a chain and a row of independent tasks, of the sizes in `$BENCH_FLOWS`."""

from __future__ import annotations

import os

from airflow.sdk import dag, task
from fibo import fibo

_CHAIN, _CHAIN_N, _WIDE, _WIDE_N = map(int, os.environ["BENCH_FLOWS"].split())


@task
def number(n: int, before: object = None) -> int:
    return fibo(n)


@dag(dag_id="chain", schedule=None, max_active_tasks=64)
def chain() -> None:
    before = None
    for _ in range(_CHAIN):
        before = number(_CHAIN_N, before)


@dag(dag_id="wide", schedule=None, max_active_tasks=64)
def wide() -> None:
    for _ in range(_WIDE):
        number(_WIDE_N)


chain()
wide()
