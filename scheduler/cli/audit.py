"""`dts audit …`: who changed what, and whether the log of it is whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import FLAG, JSON, REMOTE, Remote, failure
from scheduler.cli.options import Config, DatabaseUrl

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick

app = App(name="audit", help="Read the audit log, verify it, and remove its oldest part.")


@app.command(name="list")
def list_audit(
    *,
    actor: Annotated[str | None, Parameter(help="Only what this one did, such as key:ci.")] = None,
    action: Annotated[str | None, Parameter(help="Only this operation, such as create_task.")] = None,
    concerning: Annotated[str | None, Parameter(help="Only what concerns this id or name.")] = None,
    denied: Annotated[bool, FLAG, Parameter(help="Only who was refused.")] = False,
    every_namespace: Annotated[bool, FLAG, Parameter(help="Of all namespaces, and what concerns none.")] = False,
    limit: Annotated[int, Parameter(help="How many at most; 0: all.")] = 100,
    remote: Remote = REMOTE,
) -> int:
    """List who changed what and who was refused, newest first."""
    from scheduler.cli.output import at_most  # noqa: PLC0415 - not needed for help

    columns: dict[str, Callable[[Any], object]] = {
        "at": lambda e: e.at,
        "actor": lambda e: e.actor,
        "action": lambda e: e.action,
        "object": lambda e: e.object,
        "status": lambda e: e.status,
        "version": lambda e: e.version_after,
        "count": lambda e: e.count,
        "request": lambda e: e.request_id,
    }
    with remote.connect() as client:
        entries = client.audit(
            every_namespace=every_namespace, actor=actor, action=action, object=concerning, denied=denied or None
        )
        remote.output().rows(at_most(entries, limit), columns)
    return exits.OK


@app.command
def verify(
    *,
    head: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help="A head (number:hash) that was kept elsewhere: that seal must still be there; again for more.",
        ),
    ] = None,
    json: JSON = False,
    config: Config = None,
    database_url: DatabaseUrl = None,
) -> int:
    """Read the whole log again and say whether anything in it was changed, removed, added or moved. Exit 1 if so.

    Asks PostgreSQL itself, and only reads. Keep the head that it prints, or the scheduler's log lines "audit log
    sealed", out of reach of whoever writes the database: only a head can tell that the newest part was cut off.
    """
    from scheduler.cli.database import with_database  # noqa: PLC0415 - not needed for help

    return with_database("dts audit", config, database_url, lambda db: _verify(db, set(head or ()), json=json))


async def _verify(database: Database, heads: set[str], *, json: bool) -> int:
    from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help
    from scheduler.store.audit import Audit  # noqa: PLC0415

    audit, last, rows = Audit(database), None, 0
    faults: list[str] = []
    async for seal, found in audit.faults():
        faults += found
        rows += seal.rows
        heads.discard(seal.head)
        last = seal
    faults += [f"the head {text} is not in the log: it was cut off or rewritten" for text in sorted(heads)]
    unsealed = await audit.unsealed(last)
    head = None if last is None else last.head
    output = Output(json=json)
    text = "\n".join([*faults, f"{rows} rows under seals, {unsealed} not sealed yet; head {head or '(none)'}"])
    output.done({"ok": not faults, "faults": faults, "rows": rows, "unsealed": unsealed, "head": head}, text)
    return exits.FAILURE if faults else exits.OK


@app.command
def prune(
    *,
    older_than: Annotated[str, Parameter(help="What was sealed longer ago goes, such as 365d.")],
    json: JSON = False,
    config: Config = None,
    database_url: DatabaseUrl = None,
) -> int:
    """Remove the oldest entries, by whole seals. The seals stay, so the chain can still be verified.

    Asks PostgreSQL itself, as whoever owns the log (`dts_migrate` in migrations/roles.sql.example): no server's role
    may. That it was done is an entry of the log.
    """
    from scheduler.cli.database import with_database  # noqa: PLC0415 - not needed for help
    from scheduler.domain.durations import parse_duration  # noqa: PLC0415

    try:
        seconds = parse_duration(older_than)
    except ValueError as error:
        raise failure(f"--older-than: {error}", exits.USAGE) from None
    return with_database("dts audit", config, database_url, lambda database: _prune(database, seconds, json=json))


async def _prune(database: Database, seconds: float, *, json: bool) -> int:
    from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help
    from scheduler.store.audit import Audit  # noqa: PLC0415

    up_to, removed = await Audit(database).prune(seconds, "prune")
    Output(json=json).done(
        {"removed": removed, "pruned_up_to_seal": up_to}, f"{removed} entries removed; only seals up to number {up_to}"
    )
    return exits.OK
