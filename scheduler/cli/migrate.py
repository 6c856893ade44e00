"""`dts migrate`: bring the database's schema up to date, or see how it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cyclopts import App

from scheduler.cli import exits
from scheduler.cli.connection import JSON, say
from scheduler.cli.database import with_database
from scheduler.cli.options import Config, DatabaseUrl

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick
    from scheduler.store.migrate import MigrationStatus

app = App(name="migrate", help="Bring the database's schema up to date, or see how it stands.")


@app.command
def up(*, json: JSON = False, config: Config = None, database_url: DatabaseUrl = None) -> int:
    """Apply what is missing, in order, each in a transaction; safe to run from several places at once."""

    async def apply(database: Database) -> int:
        from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help
        from scheduler.store import migrate  # noqa: PLC0415

        out = Output(json=json)
        done = await migrate.up(database, say=say)
        for migration in done:
            status = migrate.MigrationStatus(migration.version, migration.name, applied=True)
            out.done(status, f"applied {migration.version} {migration.name}")
        if not done:
            say("nothing to do")
        return exits.OK

    return with_database("dts migrate", config, database_url, apply, schema=False)


@app.command
def status(
    *,
    config: Config = None,
    database_url: DatabaseUrl = None,
    json: JSON = False,
) -> int:
    """List the migrations that this release knows; exit 1 if one is not applied."""

    async def show(database: Database) -> int:
        from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help
        from scheduler.store import migrate  # noqa: PLC0415

        columns: dict[str, Callable[[MigrationStatus], object]] = {
            "version": lambda m: m.version,
            "name": lambda m: m.name,
            "state": lambda m: "applied" if m.applied else "missing",
        }
        known = await migrate.status(database)
        Output(json=json).rows(known, columns)
        return exits.OK if all(migration.applied for migration in known) else exits.FAILURE

    return with_database("dts migrate", config, database_url, show, schema=False)
