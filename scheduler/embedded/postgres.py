"""PostgreSQL on a private directory: made once, started durable, reached by a unix socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from scheduler.embedded.account import Account, give
from scheduler.embedded.addresses import DATABASE, PORT, ROLE, postgres_url
from scheduler.embedded.binaries import PostgresPrograms
from scheduler.embedded.leftovers import stop_leftover
from scheduler.embedded.process import Command, run_program

_FAST = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))

SETTINGS: dict[str, str] = {
    # Durability is the promise: these are the defaults, stated so that no file can quietly change them.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "wal_level": "minimal",  # no replicas of an embedded server; pg_dump is its backup
    "max_wal_senders": "0",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",  # statements are short: compiling one costs more than running it
    "autovacuum_naptime": "10s",  # queues turn over quickly
    "max_parallel_workers_per_gather": "0",
    "log_checkpoints": "off",
    "timezone": "UTC",
}


class PostgresServer:
    """An embedded server. `prepare`, then run `command()` with `scheduler.embedded.process.serve`."""

    def __init__(
        self,
        programs: PostgresPrograms,
        *,
        data: Path,
        sockets: Path,
        log: Path,
        account: Account | None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._programs = programs
        self._data = data
        self._sockets = sockets
        self._log = log
        self._account = account
        self._settings = {**SETTINGS, **(settings or {})}
        if programs.major >= 18:
            self._settings.setdefault("io_method", "sync")  # no extra processes for a working set in memory

    def url(self, database: str = DATABASE) -> str:
        """Return how to connect."""
        return postgres_url(self._sockets, database)

    async def prepare(self) -> bool:
        """Stop a leftover server, and make the data directory if there is none yet; True if it was made."""
        give(self._sockets, self._account)
        if (self._data / "PG_VERSION").exists():
            await stop_leftover(
                self._data / "postmaster.pid",
                program="postgres",
                directory=self._data,
                signals=_FAST,
                locks=[self._sockets / f".s.PGSQL.{PORT}.lock"],
            )
            self._write_access()
            return False
        await self._make()
        return True

    def command(self) -> Command:
        """Return how to run the server."""
        options = [word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")]
        return Command(
            name="postgres",
            argv=[
                str(self._programs.postgres),
                "-D",
                str(self._data),
                "-k",
                str(self._sockets),
                "-p",
                str(PORT),
                *options,
            ],
            account=self._account,
            log=self._log,
            ready=b"database system is ready to accept connections",
            stop=_FAST,
        )

    async def _make(self) -> None:
        """Make the directory beside its place and move it there: a crash half-way leaves nothing that looks done."""
        partial = self._data.with_name(self._data.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        give(partial, self._account)
        locale = ["--locale=C"]
        if self._programs.major >= 17:
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        await run_program(
            [
                *(str(self._programs.initdb), "-D", str(partial), "-U", ROLE, "-E", "UTF8", *locale),
                *("--auth-local=peer", "--auth-host=reject", "--no-instructions"),
            ],
            self._account,
        )
        # The database that initdb made becomes ours: quicker than making another, and there is none to
        # confuse it with.
        await run_program(
            [str(self._programs.postgres), "--single", "-D", str(partial), "template1"],
            self._account,
            f"ALTER DATABASE postgres RENAME TO {DATABASE};\n".encode(),
        )
        partial.rename(self._data)
        self._write_access()

    def _write_access(self) -> None:
        """Let who runs the supervisor, and nobody else, connect as the one database role."""
        user = pwd.getpwuid(os.geteuid()).pw_name
        for name, line in (
            ("pg_hba.conf", "local all all peer map=dts"),
            ("pg_ident.conf", f'dts "{user}" {ROLE}'),
        ):
            path = self._data / name
            if not path.exists() or path.read_text() != line + "\n":
                path.write_text(line + "\n")  # in place: it keeps its owner
