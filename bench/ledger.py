"""What work costs, by component: read before and after, divided by the tasks in between."""

from __future__ import annotations

import anyio
import msgspec
from redis.asyncio import Redis

from bench.model import Sample
from bench.processes import difference
from bench.system import System

_STATISTICS = 1.1
"""Seconds after which PostgreSQL's own counters have caught up."""

_POSITION = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS transactions,
       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint AS log
"""


class Reading(msgspec.Struct, frozen=True):
    """Counters at one moment.

    `cpu` is in seconds by role; `transactions` counts those that wrote; `log` is PostgreSQL's, in bytes, `syncs` how
    often that was forced to disk; `valkey` the bytes that went in and out there.
    """

    cpu: dict[str, float]
    transactions: int
    syncs: int
    log: int
    valkey: int


async def take(system: System) -> Reading:
    """Read every counter, once those of PostgreSQL have caught up."""
    cpu = system.processes.cpu()
    row = await system.database.fetchrow(_POSITION)
    await anyio.sleep(_STATISTICS)
    syncs = await system.wal_syncs()
    async with Redis.from_url(system.redis_url) as valkey:
        traffic = await valkey.info("stats")
    moved = traffic["total_net_input_bytes"] + traffic["total_net_output_bytes"]
    return Reading(cpu, row["transactions"], syncs, row["log"], moved)


def costs(shape: str, before: Reading, after: Reading, count: int) -> list[Sample]:
    """Return what each of `count` tasks has cost, as `bench.capacity` reads it again."""

    def each(what: str, used: float, unit: str) -> Sample:
        return Sample(name=f"{shape}: {what}", value=used / count, unit=unit, better="lower")

    cpu = [
        each(f"CPU of {role}", used * 1e6, "µs/task")
        for role, used in difference(before.cpu, after.cpu).items()
        if used > 0
    ]
    return [
        *cpu,
        each("writing transactions", after.transactions - before.transactions, "transactions/task"),
        each("log forced to disk", after.syncs - before.syncs, "syncs/task"),
        each("PostgreSQL's log", after.log - before.log, "bytes/task"),
        each("in and out of Valkey", after.valkey - before.valkey, "bytes/task"),
    ]
