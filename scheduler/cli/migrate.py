"""`dts migrate`: bring the database's schema up to date, or see how it stands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from scheduler.cli import exits
from scheduler.cli.connection import JSON
from scheduler.cli.database import with_database
from scheduler.cli.options import Config, DatabaseUrl

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick

app = App(name="migrate", help="Bring the database's schema up to date, or see how it stands.")


@app.command
def up(*, json: JSON = False, config: Config = None, database_url: DatabaseUrl = None) -> int:
    """Apply what is missing, in order, each in a transaction; safe to run from several places at once."""

    async def apply(database: Database) -> int:
        from scheduler.store import migrate  # noqa: PLC0415

        done = await migrate.up(database)
        for migration in done:
            applied = {"applied": True, "version": migration.version, "name": migration.name}
            text = msgspec.json.encode(applied).decode() if json else f"applied {migration.version} {migration.name}"
            sys.stdout.write(f"{text}\n")
        if not done and not json:
            sys.stdout.write("nothing to do\n")
        return exits.OK

    return with_database("dts migrate", config, database_url, apply)


@app.command
def status(
    *,
    config: Config = None,
    database_url: DatabaseUrl = None,
    json: JSON = False,
) -> int:
    """List the migrations that this release knows; exit 1 if one is not applied."""

    async def show(database: Database) -> int:
        from scheduler.store import migrate  # noqa: PLC0415

        known = await migrate.status(database)
        for migration in known:
            if json:
                sys.stdout.write(msgspec.json.encode(migration).decode() + "\n")
            else:
                state = "applied" if migration.applied else "missing"
                sys.stdout.write(f"{state}  {migration.version}  {migration.name}\n")
        return exits.OK if all(migration.applied for migration in known) else exits.FAILURE

    return with_database("dts migrate", config, database_url, show)
