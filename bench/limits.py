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


async def queue_rate(connection: Any, *, rows: int) -> float:
    """Return how many rows a second PostgreSQL inserts by 1,000 and changes twice by 64, durably: a bare queue."""
    await connection.execute(
        "CREATE TABLE bench_queue (id bigint PRIMARY KEY, state text NOT NULL, body jsonb NOT NULL)"
        " WITH (fillfactor = 50)"
    )
    try:
        begin = anyio.current_time()
        for first in range(0, rows, 1000):
            await connection.execute(
                "INSERT INTO bench_queue SELECT n, 'queued', $3::jsonb"
                " FROM generate_series($1::bigint, $2::bigint) AS n",
                first,
                min(first + 1000, rows) - 1,
                '{"name": "bench", "command": ["/bin/true"]}',
            )
        for first in range(0, rows, 64):
            ids = list(range(first, min(first + 64, rows)))
            for state in ("running", "completed"):
                await connection.execute("UPDATE bench_queue SET state = $2 WHERE id = ANY($1::bigint[])", ids, state)
        return rows / (anyio.current_time() - begin)
    finally:
        await connection.execute("DROP TABLE bench_queue")
