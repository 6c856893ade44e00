"""The servers of one data directory together: chosen, prepared, started side by side, started again when they die."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from scheduler.embedded.binaries import PostgresPrograms
from scheduler.embedded.plan import Plan
from scheduler.embedded.postgres import PostgresServer
from scheduler.embedded.process import ServerFailed, serve
from scheduler.embedded.programs import reachable_program, reachable_tree
from scheduler.embedded.valkey import ValkeyServer
from scheduler.service import STEADY, sleep
from scheduler.telemetry import get_logger

_log = get_logger("embedded")

Progress = Callable[[str], None]


async def run_servers(plan: Plan, progress: Progress, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    """Run the planned servers until cancelled, then stop them; `started` once all are ready.

    Raises ServerFailed if one cannot be started in the first place.
    """
    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as starting:
            if plan.postgres is not None:
                starting.start_soon(group.start, _keep_postgres, plan, progress, name="start:postgres")
            if plan.valkey is not None:
                starting.start_soon(group.start, _keep_valkey, plan, progress, name="start:valkey")
        task_status.started()


async def _keep_postgres(plan: Plan, progress: Progress, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    assert plan.postgres is not None
    assert plan.sockets is not None
    root = reachable_tree(plan.postgres.root, plan.data.programs(plan.account), plan.account)
    server = PostgresServer(
        PostgresPrograms(root, plan.postgres.major),
        data=plan.data.postgres,
        sockets=plan.sockets,
        log=plan.data.logs / "postgres.log",
        account=plan.account,
    )

    async def round_(status: anyio.abc.TaskStatus[None]) -> None:
        if await server.prepare():
            progress("PostgreSQL has a fresh data directory")
        await serve(server.command(), task_status=status)

    await _keep("PostgreSQL", round_, progress, task_status)


async def _keep_valkey(plan: Plan, progress: Progress, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    assert plan.valkey is not None
    assert plan.sockets is not None
    server = ValkeyServer(
        reachable_program(plan.valkey, plan.data.programs(plan.account), plan.account),
        data=plan.data.valkey,
        sockets=plan.sockets,
        log=plan.data.logs / "valkey.log",
        account=plan.account,
    )

    async def round_(status: anyio.abc.TaskStatus[None]) -> None:
        await server.prepare()
        await serve(server.command(), task_status=status)

    await _keep("Valkey", round_, progress, task_status)


class _Once:
    """A task status that tells the starter about the first readiness only; later ones are restarts."""

    def __init__(self, status: anyio.abc.TaskStatus[None], announce: Callable[[], None]) -> None:
        self._status = status
        self._announce = announce
        self.done = False

    def started(self, value: None = None) -> None:
        self._announce()
        if not self.done:
            self.done = True
            self._status.started(value)


async def _keep(
    name: str,
    run: Callable[[anyio.abc.TaskStatus[None]], Awaitable[None]],
    progress: Progress,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    failures = 0

    def announce() -> None:
        nonlocal failures
        failures = 0
        progress(f"{name} is ready")

    once = _Once(task_status, announce)
    while True:
        try:
            await run(once)
        except (ServerFailed, OSError) as error:  # a full disk has no room for what a start writes, for one
            if not once.done:
                raise
            _log.error("server does not start again", server=name, error=str(error))
        failures += 1
        await sleep(STEADY.delay(failures))
