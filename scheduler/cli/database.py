"""Commands that talk to PostgreSQL themselves."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from scheduler.cli import exits
from scheduler.cli.processes import load

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick


def with_database(
    name: str, config: str | None, database_url: str | None, work: Callable[[Database], Awaitable[int]]
) -> int:
    """Run `work` on the database of the configuration, as the client `name`; return its exit code."""
    import anyio  # noqa: PLC0415
    from asyncpg import InsufficientPrivilegeError  # noqa: PLC0415

    from scheduler.store.database import Database, StoreUnavailable  # noqa: PLC0415

    loaded = load({"config": config, "database.url": database_url})
    if loaded is None:
        return exits.CONFIG
    url = loaded.config.database.url
    if not url:
        sys.stderr.write("dts: no database: give --database-url or DTS_DATABASE_URL\n")
        return exits.CONFIG

    async def main() -> int:
        try:
            database = await Database.connect(url, name=name, max_size=2)
        except StoreUnavailable as error:
            sys.stderr.write(f"dts: {error}\n")
            return exits.UNAVAILABLE
        try:
            return await work(database)
        except InsufficientPrivilegeError as error:
            sys.stderr.write(f"dts: {error}: connect as the owner of the tables (dts_migrate), or as dts_scheduler\n")
            return exits.FAILURE
        finally:
            await database.close()

    return anyio.run(main)
