"""`dts secret …`: values that commands get and nobody reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import JSON, REMOTE, Remote, failure, need
from scheduler.cli.options import Config, DatabaseUrl

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick
    from scheduler.store.envelope import MasterKeys

app = App(name="secret", help="Store secrets for commands, list and delete them.")

Name = Annotated[str, Parameter(help="As the environment of a task names it.")]


@app.command(name="set")
def store(
    name: Name,
    /,
    *,
    file: Annotated[Path | None, Parameter(help="Where the value stands. Default: stdin.")] = None,
    remote: Remote = REMOTE,
) -> int:
    """Store a secret, or its next version. One newline (or CR LF) at the end does not belong to the value.

    A value is never an argument, which everybody on the machine could read in the process list. A task uses it with
    `"env": {"PASSWORD": {"secret": "NAME"}}`.
    """
    try:
        if file is not None:
            value = file.read_bytes().decode("utf-8")
        elif sys.stdin.isatty():
            from getpass import getpass  # noqa: PLC0415 - for people only

            value = getpass("value (not shown): ")
        else:
            value = sys.stdin.buffer.read().decode("utf-8")
    except (OSError, ValueError) as error:
        raise failure(f"the value cannot be read: {error}", exits.USAGE) from None
    end = "\r\n" if value.endswith("\r\n") else "\n"
    with remote.connect() as client:
        secret = client.store_secret(name, value.removesuffix(end))
        remote.output().done(secret, f"{secret.name}: version {secret.version}")
    return exits.OK


@app.command(name="list")
def list_secrets(*, remote: Remote = REMOTE) -> int:
    """List secrets, without their values."""
    columns: dict[str, Callable[[Any], object]] = {
        "name": lambda s: s.name,
        "version": lambda s: s.version,
        "updated": lambda s: s.updated_at,
        "by": lambda s: s.updated_by,
        "master key": lambda s: s.key_id,
    }
    with remote.connect() as client:
        remote.output().rows(client.secrets(), columns, empty="no secrets; store one with: dts secret set NAME")
    return exits.OK


@app.command
def delete(*names: Name, remote: Remote = REMOTE) -> int:
    """Delete secrets that no recurring task uses."""
    need(names, "secrets")
    with remote.connect() as client:
        for name in names:
            client.delete_secret(name)
            remote.output().done({"name": name, "deleted": True}, f"{name} deleted")
    return exits.OK


@app.command
def rotate_key(*, json: JSON = False, config: Config = None, database_url: DatabaseUrl = None) -> int:
    """Wrap every secret's own key with the master key that is named first; values and versions stay as they are.

    Put a new key before the old one in secrets.master_key, start API and workers again, run this on a machine that
    reaches the database and has both keys, then take the old key away. It may be interrupted and run again.
    """
    from scheduler.cli.database import with_database  # noqa: PLC0415 - not needed for help
    from scheduler.cli.processes import load  # noqa: PLC0415

    loaded = load({"config": config, "database.url": database_url})
    if loaded is None:
        return exits.CONFIG
    if not loaded.config.secrets.master_key:
        raise failure("there is no master key: give secrets.master_key (DTS_SECRETS__MASTER_KEY_FILE)", exits.CONFIG)
    from scheduler.store.envelope import MasterKeys  # noqa: PLC0415 - cryptography takes long to import

    keys = MasterKeys(loaded.config.secrets.master_key)
    return with_database("dts secret", config, database_url, lambda database: _rotate(database, keys, json=json))


async def _rotate(database: Database, keys: MasterKeys, *, json: bool) -> int:
    from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help
    from scheduler.store.audit import Entry, write_audit  # noqa: PLC0415
    from scheduler.store.envelope import Unopenable  # noqa: PLC0415
    from scheduler.store.secrets import Secrets  # noqa: PLC0415

    secrets, count = Secrets(database), 0
    while True:
        async with database.transaction() as executor:
            try:
                done = await secrets.rewrap_some(executor, keys)
            except Unopenable as error:
                raise failure(f"{count} secrets were wrapped anew, and then: {error}") from None
            if not done:
                break
            entry = Entry(
                namespace=None,
                actor="rotate-key",
                action="rewrap_secrets",
                object=keys.current,
                request_id="-",
                status=200,
                count=len(done),
            )
            await write_audit(executor, [entry])
        count += len(done)
    Output(json=json).done(
        {"key_id": keys.current, "rewrapped": count}, f"{count} secrets wrapped anew, all by {keys.current}"
    )
    return exits.OK
