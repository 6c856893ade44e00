"""Limits of this machine, to hold measurements against."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio

from bench.native import Programs

NO_COMPILER = "no C compiler: nothing is held against the spawn limit"


async def spawn_rates(programs: Programs, *, processes: Iterable[int], spawns: int) -> dict[int, float] | None:
    """Return how many /bin/true a second C loops start and reap, by number of processes; None without a compiler."""
    program = await programs.build("spawn")
    if program is None:
        return None
    rates = {}
    for count in processes:
        answer = await anyio.run_process([str(program), str(count), str(spawns)])
        rates[count] = spawns / float(answer.stdout)
    return rates


async def insert_rate(connection: Any, *, rows: int) -> float:
    """Return how many rows a second PostgreSQL takes, durably, by one statement: a narrow table, nothing else done."""
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_limit (id uuid PRIMARY KEY, body jsonb NOT NULL)")
    body = '{"name": "bench", "command": ["/bin/true"]}'
    begin = anyio.current_time()
    await connection.execute(
        "INSERT INTO bench_limit SELECT gen_random_uuid(), b::jsonb FROM unnest($1::text[]) AS b", [body] * rows
    )
    elapsed = anyio.current_time() - begin
    await connection.execute("DROP TABLE bench_limit")
    return rows / elapsed
