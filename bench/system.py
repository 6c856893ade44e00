"""A system of our own: `dts up` on a private directory, with a look into its database and its processes.

Submitting goes through HTTP as for everybody. Looking (has everything ended? when?) goes to PostgreSQL directly, so
that watching does not load the API that is being measured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import asyncpg

from bench.child import module, send
from bench.load import Job, Result
from bench.machine import first_line
from bench.processes import Processes
from bench.server import Server, start_server
from scheduler.embedded.addresses import postgres_url, valkey_url

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

# One condition for each partial index over live states: looking costs the same however long the history is.
_LIVE = (
    "state = 'queued'",
    "state = 'running'",
    "state = 'pending' AND unmet = 0 AND NOT held",
    "state = 'pending' AND (unmet > 0 OR held)",
)
_MANY = 200  # to count more would take from what is measured
_LEFT = " + ".join(f"(SELECT count(*) FROM (SELECT FROM runs WHERE {live} LIMIT {_MANY}) AS few)" for live in _LIVE)

_SESSION = {
    "application_name": "bench",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",  # a plain index scan also remembers which entries are dead
}


class NotDurable(Exception):
    """PostgreSQL would lose acknowledged work; no figure from it means anything."""


class Unfinished(Exception):
    """Work did not end as it should have."""


class System:
    """A running system and one connection to its database."""

    def __init__(self, server: Server, data: Path, database: Any, sockets: Path) -> None:
        self.server = server
        self.data = data
        self.database = database
        self.database_url = postgres_url(sockets)
        self.redis_url = valkey_url(sockets)
        self.processes = Processes(server.pid, server.port)

    async def post(
        self,
        path: str,
        bodies: list[bytes],
        *,
        count: int | None = None,
        connections: int = 1,
        rate: float | None = None,
        keep: bool = False,
    ) -> Result:
        """Have a load generator POST `bodies` in turn, `count` times (once each by default)."""
        return await send(
            Job(
                host=self.server.host,
                port=self.server.port,
                path=path,
                bodies=bodies,
                count=count or len(bodies),
                connections=connections,
                rate=rate,
                keep=keep,
            )
        )

    async def until_done(self, *, timeout: float) -> float:  # noqa: ASYNC109 - how long it may take is what we ask
        """Wait until no run is live and return the (monotonic) moment at which that was seen. Raises Unfinished.

        Looks rarely while there is much to do, and often at the end.
        """
        with anyio.move_on_after(timeout):
            while True:
                left = await self.database.fetchval(f"SELECT {_LEFT}")
                if left == 0:
                    return anyio.current_time()
                await anyio.sleep(0.1 if left >= _MANY else 0.01 if left > 20 else 0.002)
        states = await self.states()
        raise Unfinished(f"after {timeout:.0f} s runs stand as {states}; the system says:\n{self.server.tail()}")

    async def states(self) -> dict[str, int]:
        """Count all runs by state."""
        return dict(await self.database.fetch("SELECT state, count(*) FROM runs GROUP BY state"))

    async def any_run(self, state: str) -> bool:
        """Say whether any run stands in a live state; pending ones count only if they are ready to go."""
        live = next(condition for condition in _LIVE if f"'{state}'" in condition)
        found: bool = await self.database.fetchval(f"SELECT EXISTS (SELECT FROM runs WHERE {live})")
        return found

    async def expect_completed(self, count: int) -> None:
        """Check that exactly `count` runs exist, each completed by one attempt: speed without that is worth nothing."""
        states = await self.states()
        attempts = await self.database.fetchval("SELECT count(*) FROM attempts WHERE outcome = 'completed'")
        if states != {"completed": count} or attempts != count:
            raise Unfinished(f"of {count} runs: {states}, {attempts} completed attempts")

    async def wal_syncs(self) -> int:
        """Return how often PostgreSQL has forced its log to disk; lags a second behind."""
        modern = await self.database.fetchval("SELECT current_setting('server_version_num')::integer >= 180000")
        syncs: int = await self.database.fetchval(
            "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"
            if modern
            else "SELECT wal_sync FROM pg_stat_wal"
        )
        return syncs


@asynccontextmanager
async def start_system(
    data: Path, *, workers: int, concurrency: int | None, valkey: bool, settings: MutableMapping[str, str]
) -> AsyncIterator[System]:
    """Run `dts up` on `data` until the block is left; what it runs on is added to `settings`.

    Without `valkey`, it is given the address of one that does not answer.

    Raises ServerFailed when it does not come up, NotDurable when PostgreSQL could lose what was acknowledged.
    """
    arguments = ["--data-dir", str(data), "--port", "0", "--workers", str(workers)]
    if concurrency is not None:
        arguments += ["--concurrency", str(concurrency)]
    if not valkey:
        arguments += ["--redis-url", f"unix://{data}.nothing-listens-here"]
    command = module("scheduler", "up", *arguments)
    async with start_server(command, data.with_name(data.name + ".log")) as server:
        sockets = _sockets(data)
        database = await look_into(data)
        try:
            await _check(database, settings)
            system = System(server, data, database, sockets)
            if valkey:
                await _describe(system, settings)
            yield system
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await database.close()


async def look_into(data: Path) -> Any:
    """Return a connection to the database of the system that runs on `data`."""
    return await asyncpg.connect(postgres_url(_sockets(data)), server_settings=_SESSION)


def _sockets(data: Path) -> Path:
    """Return where the system's PostgreSQL listens, as it says itself; Valkey has its socket beside it."""
    return Path((data / "postgres" / "postmaster.pid").read_text().splitlines()[4])


async def _check(database: Any, settings: MutableMapping[str, str]) -> None:
    shown: tuple[Literal["server_version", "shared_buffers", "wal_sync_method"], ...] = (
        "server_version",
        "shared_buffers",
        "wal_sync_method",
    )
    for name in (*DURABLE, *shown):
        settings[f"postgresql {name}"] = await database.fetchval("SELECT current_setting($1)", name)
    wrong = {
        name: settings[f"postgresql {name}"]
        for name, value in DURABLE.items()
        if settings[f"postgresql {name}"] != value
    }
    if wrong:
        raise NotDurable(f"PostgreSQL runs with {wrong}")


async def _describe(system: System, settings: MutableMapping[str, str]) -> None:
    if "valkey" not in settings:
        program = system.processes.by_role()["valkey"][0].exe()
        settings["valkey"] = await anyio.to_thread.run_sync(first_line, [program, "--version"])
