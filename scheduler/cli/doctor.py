"""`dts doctor`: look at a live system and say what is wrong with it. Nothing is changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.database import with_database
from scheduler.cli.options import Config, DatabaseUrl

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick

app = App(name="doctor")


@app.default
def doctor(
    *,
    invariants: Annotated[
        bool, Parameter(negative="", help="Only check the promises: whether what PostgreSQL holds contradicts them.")
    ] = False,
    newest: Annotated[int | None, Parameter(help="Rows of history to look at. Default: 10000.")] = None,
    json: Annotated[bool, Parameter(negative="", help="One JSON object a line.")] = False,
    config: Config = None,
    database_url: DatabaseUrl = None,
) -> int:
    """Look at a live system and say what is wrong with it. Changes nothing; exit 1 if anything is wrong."""
    _ = invariants  # all that there is to check so far

    async def look(database: Database) -> int:
        return await _invariants(database, newest, json=json)

    return with_database("dts doctor", config, database_url, look)


async def _invariants(database: Database, newest: int | None, *, json: bool) -> int:
    from scheduler.cli.output import Output  # noqa: PLC0415
    from scheduler.store.invariants import NEWEST, check  # noqa: PLC0415

    findings = await check(database, newest=NEWEST if newest is None else newest)
    output = Output(json=json)
    if output.pretty:
        for finding in findings:
            mark = "broken" if finding.violations else "holds "
            sys.stdout.write(f"{mark}  {finding.promise:>2}  {finding.says} ({finding.name})\n")
            for violation in finding.violations:
                sys.stdout.write(f"            {violation.subject}: {violation.detail}\n")
    else:
        for finding in findings:
            output.data(finding)
    return exits.FAILURE if any(finding.violations for finding in findings) else exits.OK
