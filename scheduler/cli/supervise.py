"""The running half of `dts up`: servers, schema, roles, readiness, and stopping it all in reverse order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

import anyio
import anyio._backends._asyncio
import anyio.abc
import msgspec
from asyncpg import PostgresError

import scheduler.cli.roles  # what the roles share is imported here, once for all of them
import scheduler.domain.cron  # noqa: F401
from scheduler import process, stderr, telemetry
from scheduler.cli import exits
from scheduler.cli.children import Children
from scheduler.cli.launch import Launched
from scheduler.config import Log
from scheduler.domain.clock import SystemClock
from scheduler.embedded.plan import Plan
from scheduler.embedded.process import ServerFailed
from scheduler.embedded.servers import run_servers
from scheduler.health import Health
from scheduler.service import Backoff, sleep, until_available
from scheduler.store import migrate
from scheduler.store.database import Database, StoreUnavailable

_FATAL = (exits.CONFIG, exits.USAGE)
_ROLE_PATIENCE = 15.0
"""Seconds for roles to end, except workers: these take as long as their tasks were promised, and wait for the database
with what has come of them. Those that have commands and renew no lease are ended by their guards."""


def supervise(
    plan: Plan,
    started: Mapping[str, Launched],
    *,
    respawn: Callable[[str], Launched],
    url: str,
    log: Log,
    say: Callable[[str], None],
) -> int:
    """Run until a signal comes; return the exit code. `started` are the roles' first processes, by name."""
    telemetry.configure(role="up", level=log.level, layout=log.format)
    supervisor = _Supervisor(plan, respawn, url, say)
    for name, launched in started.items():
        supervisor.children.add(name, launched)
    code = process.run_process(supervisor.run)
    return supervisor.code or code


class _Readiness(msgspec.Struct):
    """What we want of the API's answer to `GET /health/ready`."""

    leader: bool
    workers: int


class _Supervisor:
    def __init__(self, plan: Plan, respawn: Callable[[str], Launched], url: str, say: Callable[[str], None]) -> None:
        self.children = Children(respawn, self._give_up)
        self.code = exits.OK
        self._plan = plan
        self._url = url
        self._say = say
        self._workers = 0
        self._stop = anyio.Event()

    async def run(self, stop: anyio.Event) -> None:
        """Bring everything up, wait for `stop`, and take everything down: workers, the other roles, servers."""
        self._stop = stop
        self._workers = len(_workers(self.children.names))
        async with anyio.create_task_group() as servers:
            try:
                async with anyio.create_task_group() as roles:
                    for name in self.children.names:
                        roles.start_soon(self.children.keep, name, _FATAL, name=f"keep:{name}")
                    roles.start_soon(self._bring_up, servers, name="bring-up")
                    await stop.wait()
                    await self._take_down()
                    roles.cancel_scope.cancel()
            finally:
                with anyio.CancelScope(shield=True):
                    await self.children.stop(self.children.names, 0)
            servers.cancel_scope.cancel()

    async def _bring_up(self, servers: anyio.abc.TaskGroup) -> None:
        try:
            await servers.start(run_servers, self._plan, self._say)
            await self._migrate()
        except* ServerFailed as failed:
            for error in _leaves(failed):
                self._fail(exits.UNAVAILABLE, str(error))
        except* PostgresError as refused:
            for error in _leaves(refused):
                self._fail(exits.FAILURE, f"the database's schema cannot be brought up to date: {error}")
        if self.code != exits.OK:
            return
        backoff = Backoff(base=0.01, cap=0.05)
        while not await self._is_ready():
            await sleep(backoff.cap / 2)
        if sys.stdout is not None:  # else its descriptor is somebody's
            stderr.write(f"ready {self._url}\n".encode(), sys.stdout.fileno())
        process.notify("READY=1")

    async def _migrate(self) -> None:
        async def apply() -> list[migrate.Migration]:
            database = await Database.connect(self._plan.database_url, name="dts-up", max_size=2)
            try:
                return await migrate.up(database, say=self._say)
            finally:
                await database.close()

        health = Health(SystemClock())
        for migration in await until_available("database", apply, health=health, retry_on=StoreUnavailable):
            self._say(f"applied migration {migration.version} {migration.name}")

    async def _is_ready(self) -> bool:
        """Ask the API whether work is accepted and will run.

        One request by hand: an HTTP client would cost more than everything else here.
        """
        where = urlsplit(self._url)
        assert where.hostname is not None
        assert where.port is not None
        request = f"GET /health/ready HTTP/1.0\r\nHost: {where.netloc}\r\n\r\n"
        answer = b""
        try:
            with anyio.fail_after(2):
                async with await anyio.connect_tcp(where.hostname, where.port) as connection:
                    await connection.send(request.encode())
                    async for chunk in connection:
                        answer += chunk
        except (OSError, TimeoutError, anyio.BrokenResourceError):
            return False
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] != [b"200"]:
            return False
        readiness = msgspec.json.decode(body, type=_Readiness)
        return readiness.leader and readiness.workers >= self._workers

    async def _take_down(self) -> None:
        names = self.children.names
        workers = _workers(names)
        self._say("stopping: running commands may finish, up to their drain timeout (again Ctrl-C: at once)")
        await self.children.stop(workers, None)
        await self.children.stop([name for name in names if name not in workers], _ROLE_PATIENCE)

    def _give_up(self, name: str, code: int) -> None:
        self._fail(code, f"{name} cannot run (exit code {code}); see above")

    def _fail(self, code: int, why: str) -> None:
        self.code = code
        self._say(why)
        self._stop.set()


def _workers(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("worker")]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
