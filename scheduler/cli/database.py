"""Commands that talk to PostgreSQL themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from scheduler.cli import exits
from scheduler.cli.connection import failure
from scheduler.cli.processes import load

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick


def with_database(
    name: str,
    config: str | None,
    database_url: str | None,
    work: Callable[[Database], Awaitable[int]],
    *,
    schema: bool = True,
    enough: str = "",
) -> int:
    """Run `work` on the database of the configuration, as the client `name`, and return its exit code.

    Unless it can do without, the `schema` has to be complete. `enough` is a role that has all rights which it needs,
    beside the owner of the tables.
    """
    import anyio  # noqa: PLC0415
    from asyncpg import InsufficientPrivilegeError, PostgresError  # noqa: PLC0415

    from scheduler.store import migrate  # noqa: PLC0415
    from scheduler.store.database import Database, StoreUnavailable  # noqa: PLC0415

    loaded = load({"config": config, "database.url": database_url})
    if loaded is None:
        return exits.CONFIG
    url = loaded.config.database.url
    if not url:
        raise failure("no database: give --database-url or DTS_DATABASE_URL", exits.CONFIG)

    async def main() -> int:
        database = await Database.connect(url, name=name, max_size=2)
        try:
            if schema and not await migrate.is_current(database):
                why = "the database lacks migrations that this release needs: run dts migrate up"
                raise failure(why, exits.RETRY)
            return await work(database)
        finally:
            await database.close()

    try:
        return anyio.run(main)
    except StoreUnavailable as error:
        raise failure(str(error), exits.UNAVAILABLE) from None
    except InsufficientPrivilegeError as error:
        others = f", or as {enough}" if enough else ""
        raise failure(f"{error}: connect as the owner of the tables (dts_migrate){others}") from None
    except PostgresError as error:
        raise failure(str(error)) from None
