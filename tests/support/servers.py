"""Real PostgreSQL and Valkey for a test session, from the same code that `dts up` uses.

They run in an event loop of their own, in a thread that lives as long as the session: the kernel ends them with it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import asyncpg
from anyio.from_thread import BlockingPortal, start_blocking_portal

from scheduler.embedded.account import server_account
from scheduler.embedded.addresses import PORT, valkey_socket
from scheduler.embedded.binaries import PostgresPrograms, find_postgres, find_valkey
from scheduler.embedded.postgres import PostgresServer
from scheduler.embedded.process import Command, serve
from scheduler.embedded.programs import reachable_program, reachable_tree
from scheduler.embedded.valkey import ValkeyServer
from scheduler.store import migrate

DATABASES = 64
TEMPLATE = "template_dts"

# Tests kill our processes, never the machine: the disk need not be waited for.
_QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "4GB"}
# Where PostgreSQL itself is killed, what it has committed must be with the kernel by then.
_CRASH_SAFE = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "4GB"}


class ServerHandle:
    """A server that a test may stop, kill, freeze and start again. Its methods block: from async tests use a thread."""

    def __init__(
        self, portal: BlockingPortal, server: PostgresServer | ValkeyServer, pid_file: Path, url: str, socket: Path
    ) -> None:
        self.url = url
        self.socket = socket
        self._portal = portal
        self._server = server
        self._pid_file = pid_file
        self._future: Any = None
        self._ended = threading.Event()

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text().split("\n", 1)[0])

    def start(self) -> None:
        self._portal.call(self._server.prepare)
        self._ended.clear()
        self._future, _ = self._portal.start_task(self._run, self._server.command())

    def stop(self) -> None:
        if self._future is not None:
            self._future.cancel()
            self._ended.wait()
            self._future = None

    def wait(self) -> None:
        """Wait until it has ended by itself. Raises what its supervision failed with, if that is what ended it."""
        self._future.result(20)
        self._future = None

    def kill(self) -> None:
        """End it as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        self._ended.wait()
        self._future = None

    def crash(self) -> None:
        """End PostgreSQL by its immediate shutdown: every session is cut, the next start recovers."""
        os.kill(self.pid, signal.SIGQUIT)
        self._ended.wait()
        self._future = None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def _run(self, command: Command, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            await serve(command, task_status=task_status)
        finally:
            self._ended.set()


class Servers:
    """The session's servers, and the making of isolated databases in them."""

    def __init__(self, portal: BlockingPortal, root: Path) -> None:
        self.portal = portal
        self._root = root
        self._names = itertools.count(1)
        self._account = server_account(task_user="nobody", home=root)
        programs = find_postgres(root)
        self._postgres_programs = PostgresPrograms(
            reachable_tree(programs.root, root / "programs", self._account), programs.major
        )
        self._valkey_program = reachable_program(find_valkey(), root / "programs", self._account)
        self._admin: asyncpg.Pool[Any]
        self._spare: Future[str]  # the next test's database is made while this one's test runs
        self.postgres = self.new_postgres("pg")
        self.valkey = self.new_valkey("vk")

    def new_postgres(self, name: str, *, crash_safe: bool = False) -> ServerHandle:
        home = self._root / name
        server = PostgresServer(
            self._postgres_programs,
            data=home / "data",
            sockets=home / "run",
            log=home / "postgres.log",
            account=self._account,
            settings=_CRASH_SAFE if crash_safe else _QUICK,
        )
        return ServerHandle(
            self.portal, server, home / "data/postmaster.pid", server.url(), home / "run" / f".s.PGSQL.{PORT}"
        )

    def new_valkey(self, name: str) -> ServerHandle:
        home = self._root / name
        server = ValkeyServer(
            self._valkey_program,
            data=home / "data",
            sockets=home / "run",
            log=home / "valkey.log",
            account=self._account,
            databases=DATABASES,
        )
        return ServerHandle(self.portal, server, home / "data/valkey.pid", server.url(), valkey_socket(home / "run"))

    def start(self) -> None:
        self.postgres.start()
        self.valkey.start()
        self.portal.call(self._make_template)
        self._spare = self.portal.start_task_soon(self._create, self.next_name(), TEMPLATE)

    def stop(self) -> None:
        self._spare.result()
        self.portal.call(self._admin.close)
        self.postgres.stop()
        self.valkey.stop()

    def next_name(self) -> str:
        return f"t{next(self._names)}"

    def next_home(self) -> Path:
        """Make the directory of the next server, which has no number of its own yet."""
        number = next(self._names)
        self._names = itertools.chain([number], self._names)
        path = self._root / f"t{number}"
        path.mkdir()
        return path

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """Yield the URL of a fresh database, with or without the schema."""
        if migrated:
            name = self._spare.result()
            self._spare = self.portal.start_task_soon(self._create, self.next_name(), TEMPLATE)
        else:
            name = self.portal.call(self._create, self.next_name(), "template0")
        try:
            yield self.postgres.url.replace("/dts?", f"/{name}?")
        finally:
            self.portal.call(self._execute, f"DROP DATABASE {name} WITH (FORCE)")

    def redis_url(self, number: int) -> str:
        return self.valkey.url.replace("db=0", f"db={number}")

    async def _create(self, name: str, template: str) -> str:
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    async def _execute(self, sql: str) -> None:
        await self._admin.execute(sql)

    async def _make_template(self) -> None:
        self._admin = await asyncpg.create_pool(self.postgres.url, min_size=1, max_size=2)
        await self._admin.execute(f"CREATE DATABASE {TEMPLATE}")
        connection = await asyncpg.connect(self.postgres.url.replace("/dts?", f"/{TEMPLATE}?"))
        try:
            await connection.execute("CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY)")
            for migration in migrate.available():
                await connection.execute(migration.up)
                await connection.execute("INSERT INTO schema_migrations VALUES ($1)", migration.version)
        finally:
            await connection.close()


@contextmanager
def session_servers() -> Iterator[Servers]:
    """Run servers in a directory that their user can reach and whose sockets have short names."""
    root = Path(tempfile.mkdtemp(prefix="dts-test-", dir="/tmp"))
    root.chmod(0o755)
    try:
        with start_blocking_portal("asyncio") as portal:
            servers = Servers(portal, root)
            servers.start()
            try:
                yield servers
            finally:
                servers.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)
