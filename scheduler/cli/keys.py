"""`dts key …`: who may use the API. The first key is made on the server itself, straight in its database."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import FLAG, JSON, REMOTE, Remote, failure, need
from scheduler.cli.options import Config, DatabaseUrl
from scheduler.domain.access import EVERY_NAMESPACE, GRANTS, PERMISSIONS, Permission, Role
from scheduler.domain.durations import parse_duration

if TYPE_CHECKING:
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick
    from scheduler.wire.access import IssuedKey

app = App(name="key", help="Make, list and revoke API keys.")


@app.command
def create(  # noqa: PLR0913 - one per flag
    *,
    name: Annotated[str, Parameter(help="What people call it; changes that it makes bear it as their actor.")],
    role: Annotated[
        Role | None, Parameter(help="viewer, operator (runs commands), editor (defines them) or admin.")
    ] = None,
    permission: Annotated[
        list[str] | None,
        Parameter(negative=(), help="A permission beside the role's, such as metrics:read; again for more."),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        Parameter(negative=(), help="A namespace that it holds in; again for more, '*' for all. Default: the current."),
    ] = None,
    expires_in: Annotated[str | None, Parameter(help="How long it holds, such as 90d. Default: until revoked.")] = None,
    out: Annotated[
        Path | None, Parameter(help="Write the key to this new file, which only you can read, instead of printing it.")
    ] = None,
    bootstrap: Annotated[
        bool,
        FLAG,
        Parameter(
            help="Make it straight in the database, for the first key or when all are lost. Default: role admin."
        ),
    ] = False,
    config: Config = None,
    database_url: DatabaseUrl = None,
    remote: Remote = REMOTE,
) -> int:
    """Make a key. It is shown once: what is stored cannot be turned back into it."""
    wrong = [text for text in permission or () if text not in get_args(Permission)]
    if wrong:
        raise failure(f"no permission {wrong[0]!r}; there are {', '.join(get_args(Permission))}", exits.USAGE)
    permissions: list[Any] = permission or []
    if not bootstrap:
        from scheduler.wire.access import NewKey  # noqa: PLC0415 - not needed for help

        new = NewKey(name=name, role=role, permissions=permissions, namespaces=namespace, expires_in=expires_in)
        with remote.connect() as client, _new_file(out) as file:
            key = client.create_key(new)
            _store(key, file, out)
        _hand_over(key, out, remote)
        return exits.OK
    from scheduler.cli.database import with_database  # noqa: PLC0415 - not needed for help

    lifetime = None if expires_in is None else _seconds(expires_in)

    async def make(database: Database) -> int:
        return await _make(
            database,
            remote,
            out,
            name=name,
            role=role or (None if permissions else "admin"),
            permissions=permissions,
            namespaces=None if EVERY_NAMESPACE in (namespace or [EVERY_NAMESPACE]) else namespace,
            lifetime=lifetime,
        )

    return with_database("dts key", config, database_url, make)


@app.command(name="list")
def list_keys(*, remote: Remote = REMOTE) -> int:
    """List the valid keys, without their secrets."""
    columns: dict[str, Callable[[Any], object]] = {
        "id": lambda k: k.id,
        "name": lambda k: k.name,
        "role": lambda k: k.role,
        "permissions": lambda k: k.permissions,
        "namespaces": lambda k: k.namespaces,
        "expires": lambda k: k.expires_at,
        "last used": lambda k: k.last_used_at,
    }
    with remote.connect() as client:
        remote.output().rows(client.keys(), columns, empty="no keys; make one with: dts key create --name NAME")
    return exits.OK


@app.command
def revoke(
    *identifiers: Annotated[str, Parameter(help="Key ids, from `dts key list`.")], remote: Remote = REMOTE
) -> int:
    """End keys: they are refused within seconds."""
    need(identifiers, "keys")
    with remote.connect() as client:
        out = remote.output()
        for identifier in identifiers:
            client.revoke_key(identifier)
            out.done({"id": identifier, "revoked": True}, f"{identifier} revoked")
    return exits.OK


async def _make(database: Database, remote: Remote, out: Path | None, *, lifetime: float | None, **fields: Any) -> int:
    from scheduler.store.audit import Entry, write_audit  # noqa: PLC0415 - not needed for help
    from scheduler.store.keys import Keys  # noqa: PLC0415

    now: datetime = await database.fetchval("database_now")
    expires_at = None if lifetime is None else now + timedelta(seconds=lifetime)
    with _new_file(out) as file:
        async with database.transaction() as executor:
            key = await Keys(database).create(executor, expires_at=expires_at, actor="bootstrap", **fields)
            if key is not None:
                entry = Entry(
                    namespace=None, actor="bootstrap", action="create_key", object=key.id, request_id="-", status=201
                )
                await write_audit(executor, [entry])
        if key is None:
            raise failure(f"a key of these namespaces is already named {fields['name']!r}; choose another name")
        _store(key, file, out)
    _hand_over(key, out, remote)
    return exits.OK


@contextmanager
def _new_file(path: Path | None) -> Iterator[IO[str] | None]:
    """Make the file for a key before the key, which nobody would ever know without; it goes if no key gets there."""
    if path is None:
        yield None
        return
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
    except OSError as error:
        raise failure(f"{path}: {error.strerror}; no key was made") from None
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _store(key: IssuedKey, file: IO[str] | None, path: Path | None) -> None:
    """Write a key into the file that was made for it, if one was."""
    if file is None:
        return
    try:
        with file:
            file.write(key.key + "\n")
    except OSError as error:
        why = f"{path}: {error.strerror}; revoke the key that was made for nothing: dts key revoke {key.id}"
        raise failure(why) from None


def _hand_over(key: IssuedKey, out: Path | None, remote: Remote) -> None:
    """Say which file holds the key, or show it to whoever asked for it."""
    output = remote.output()
    if out is not None:
        output.done({"id": key.id, "file": str(out)}, f"{key.id} ({key.name}) is in {out}")
        return
    if output.pretty:
        sys.stderr.write("dts: this is the only time that the key is shown\n")
        output.done(key, key.key)
    else:
        output.data(key)


@app.command
def roles(*, json: JSON = False) -> int:
    """List what each role holds. Asks no server."""
    from scheduler.cli.output import Output  # noqa: PLC0415 - not needed for help

    rows = [
        {"permission": permission, **{role: permission in held for role, held in GRANTS.items()}}
        for permission in PERMISSIONS
    ]
    columns: dict[str, Callable[[dict[str, Any]], object]] = {"permission": lambda row: row["permission"]}
    columns |= {role: lambda row, role=role: "yes" if row[role] else None for role in GRANTS}  # type: ignore[misc]
    Output(json=json).rows(rows, columns)
    return exits.OK


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise failure(f"--expires-in: {error}", exits.USAGE) from None
