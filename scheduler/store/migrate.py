"""Applies the plain SQL files of `migrations/`: forward only, one transaction each, in the format of dbmate.

Several processes may start at once: an advisory lock lets one apply while the others wait and then find nothing to do.

A statement may take as long as it takes, but it does not wait for long: while it asks for a table, everybody who comes
later stands behind it. It gives way to a dump or to whoever else has used the table for long, and asks again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from scheduler.service import sleep
from scheduler.store.database import Database

_FILE = re.compile(r"(\d{14})_(\w+)\.sql")
_LOCK = 0x64747320  # "dts "
_A_DAY = 86400.0  # seconds: the driver has to be told of an end
_PATIENCE: Final = 2.0
"""Seconds that a migration stands in a table's queue: less than a leader's term bears, and more than the second after
which PostgreSQL ends an autovacuum that is in somebody's way."""
_GIVE_WAY: Final = 10.0  # seconds until it asks again
_PACKAGED = Path(__file__).parent.parent / "_migrations"
_CHECKOUT = Path(__file__).parent.parent.parent / "migrations"


class Migration(msgspec.Struct, frozen=True):
    """One file: `version` is its time stamp, `up` the statements between `-- migrate:up` and `-- migrate:down`."""

    version: str
    name: str
    up: str


class MigrationStatus(msgspec.Struct, frozen=True):
    """Whether one migration stands in the database."""

    version: str
    name: str
    applied: bool


def directory() -> Path:
    """Return where the files are: inside an installed package, or at the top of a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def available(folder: Path | None = None) -> list[Migration]:
    """Read every migration in order. Raises ValueError for a file that is not in dbmate's format."""
    found = []
    for path in sorted((folder or directory()).glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        text = path.read_text("utf-8")
        head, up, rest = text.partition("-- migrate:up\n")
        if match is None or not up or head.strip():
            raise ValueError(f"{path.name} is no migration: YYYYMMDDhhmmss_name.sql that begins with '-- migrate:up'")
        found.append(Migration(match[1], match[2], rest.partition("-- migrate:down")[0]))
    return found


async def _applied(connection: Any) -> set[str]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return set()
    return {row["version"] for row in await connection.fetch("SELECT version FROM schema_migrations")}


@asynccontextmanager
async def _unhurried(connection: Any) -> AsyncIterator[None]:
    """Let no statement of this session be cut short, until it is given back."""
    await connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")
    try:
        yield
    finally:
        await connection.execute("RESET statement_timeout; RESET lock_timeout")


async def _apply(connection: Any, migration: Migration, say: Callable[[str], None]) -> None:
    """Apply one migration in a transaction, as often as it has to give way."""
    waits = f"{migration.version} {migration.name} waits for a table that somebody holds: a dump, a long transaction"
    said = False
    while True:
        try:
            async with connection.transaction():
                await connection.execute(migration.up, timeout=_A_DAY)
                await connection.execute("INSERT INTO schema_migrations VALUES ($1)", migration.version)
        except asyncpg.LockNotAvailableError:
            if not said:
                say(waits)
            said = True
            await sleep(_GIVE_WAY)
        else:
            return


async def up(
    database: Database, migrations: list[Migration] | None = None, *, say: Callable[[str], None] = lambda _: None
) -> list[Migration]:
    """Apply what is missing and return it: however long it takes, and whoever applies something at the moment.

    `say` is told, once for each, which migration has to wait.
    """
    done = []
    async with database.session() as connection, _unhurried(connection):
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK, timeout=_A_DAY)
        try:
            await connection.execute(f"SET lock_timeout = {int(_PATIENCE * 1000)}")
            await connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version varchar(128) PRIMARY KEY)")
            applied = await _applied(connection)
            for migration in migrations if migrations is not None else available():
                if migration.version in applied:
                    continue
                await _apply(connection, migration, say)
                done.append(migration)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
    return done


async def status(database: Database) -> list[MigrationStatus]:
    """Return every migration that this release knows, and whether it is applied."""
    async with database.session() as connection:
        applied = await _applied(connection)
    return [MigrationStatus(m.version, m.name, m.version in applied) for m in available()]


async def is_current(database: Database) -> bool:
    """Say whether everything that this release needs is applied (a newer schema is fine)."""
    return all(migration.applied for migration in await status(database))
