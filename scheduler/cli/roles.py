"""The composition root: turns the configuration into one role's plain settings, and runs the role until it is stopped.

The database may be away when a role starts, or not have its schema yet: the role waits, says so, and goes on by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.abc
import msgspec

from scheduler import lifeline, process, telemetry
from scheduler.broker.broker import Broker
from scheduler.cli import exits, garbage
from scheduler.config import Config
from scheduler.domain.clock import Clock, SystemClock
from scheduler.health import Health
from scheduler.service import Service, Unavailable, cancelled_by, until_available
from scheduler.store import migrate
from scheduler.store.database import Database, StoreUnavailable

if TYPE_CHECKING:
    from scheduler.api.settings import JwtSettings  # each process imports its own role only
    from scheduler.store.envelope import MasterKeys


class Role(Protocol):
    """What each role's package offers, with its settings already applied."""

    async def __call__(
        self,
        *,
        database: Database,
        broker: Broker,
        clock: Clock,
        health: Health,
        stop: anyio.Event,
        task_status: anyio.abc.TaskStatus[Any],
        **extra: Database,
    ) -> None:
        """Do the role's work until `stop` is set, then drain. `task_status` is told once the role is at work."""
        ...


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """A role with what it needs of the database: the size of its pool, and settings of each session.

    `extra` asks for further pools: the name of the argument that takes one, and its size. `patience` is how many
    seconds a statement may take.
    """

    run: Role
    connections: int
    session: Mapping[str, str] = {}
    extra: Mapping[str, int] = {}
    patience: float = 30.0


class _SchemaMissing(Unavailable):
    pass


def api() -> None:
    """Run `dts-api`."""
    _console("api")


def scheduler() -> None:
    """Run `dts-scheduler`."""
    _console("scheduler")


def _console(command: str) -> None:
    from scheduler.cli import main  # noqa: PLC0415 - which imports us

    main([command, *sys.argv[1:]])


def run_role(name: str, config: Config) -> int:
    """Run the role `api`, `scheduler` or `worker` as this process; return its exit code."""
    telemetry.configure(role=name, level=config.log.level, layout=config.log.format)
    missing = [f"{key}.url" for key in ("database", "redis") if not getattr(config, key).url]
    if missing:
        sys.stderr.write(f"dts: {' and '.join(missing)} must be set: DTS_DATABASE_URL, DTS_REDIS_URL, or see --help\n")
        return exits.CONFIG
    lifeline.die_with_parent()
    lifeline.call_ourselves(f"dts-{name}")
    wiring = _ROLES[name](config)
    garbage.begin()

    left = False

    async def main(stop: anyio.Event) -> None:
        nonlocal left
        await _run(wiring, name, config, stop)
        left = not stop.is_set()

    code = process.run_process(main)
    return lifeline.LEFT if left and code == exits.OK else code


async def _run(wiring: Wiring, name: str, config: Config, stop: anyio.Event) -> None:
    clock = SystemClock()
    health = Health(clock)
    async with AsyncExitStack() as stack:

        async def connect(size: int) -> Database:
            database = await Database.connect(
                config.database.url,
                name=f"dts-{name}",
                max_size=size,
                statement_timeout=wiring.patience,
                settings=wiring.session,
            )
            stack.push_async_callback(_close, database)
            return database

        async def identity() -> str:
            if not await migrate.is_current(database):
                raise _SchemaMissing("the database lacks migrations that this release needs: run dts migrate up")
            return str(await database.fetchval("identity"))

        waiting = partial(until_available, health=health, retry_on=(StoreUnavailable, _SchemaMissing))
        async with cancelled_by(stop) as scope:
            database = await waiting("database", partial(connect, wiring.connections))
            installation = await waiting("schema", identity)
            extra = {key: await waiting("database", partial(connect, size)) for key, size in wiring.extra.items()}
        if scope.cancelled_caught:
            return
        broker = Broker.connect(config.redis.url, installation=installation, name=f"dts-{name}", clock=clock)
        stack.push_async_callback(_close, broker)
        async with Service("process", health=health) as service:
            service.start("broker", broker.run, health)
            service.loop("garbage", garbage.Collection(clock).step)
            await wiring.run(
                database=database,
                broker=broker,
                clock=clock,
                health=health,
                stop=stop,
                task_status=_Ready(),
                **extra,
            )


class _Ready:
    """A task status that tells whoever supervises this process that the role is at work."""

    def started(self, value: object = None) -> None:  # noqa: ARG002 - a port, or nothing
        process.notify("READY=1")


async def _close(connection: Database | Broker) -> None:
    with anyio.move_on_after(5, shield=True):
        await connection.close()


def _jwt(config: Config) -> JwtSettings | None:
    from scheduler.api.settings import JwtSettings  # noqa: PLC0415

    auth = config.auth
    if not auth.jwt_issuer:
        return None
    return JwtSettings(
        issuer=auth.jwt_issuer,
        audience=auth.jwt_audience,
        jwks_file=auth.jwt_jwks_file,
        jwks_url=auth.jwt_jwks_url,
        secret=auth.jwt_secret,
        leeway=auth.jwt_leeway,
        refresh=auth.jwt_refresh,
        role_claim=auth.jwt_role_claim,
        permissions_claim=auth.jwt_permissions_claim,
        namespaces_claim=auth.jwt_namespaces_claim,
    )


def _master_keys(config: Config) -> MasterKeys | None:
    if not config.secrets.master_key:
        return None
    from scheduler.store.envelope import MasterKeys  # noqa: PLC0415 - cryptography takes long to import

    return MasterKeys(config.secrets.master_key)


def _api(config: Config) -> Wiring:
    from scheduler.api import ApiSettings, TlsSettings, serve  # noqa: PLC0415 - each process imports its own role only

    settings = ApiSettings(
        host=config.api.host,
        port=config.api.port,
        max_body=config.api.max_body,
        drain_timeout=config.api.drain_timeout,
        development=config.auth.development,
        open_to_all=frozenset(config.auth.open),
        jwt=_jwt(config),
        tls=TlsSettings(config.api.tls_certificate, config.api.tls_key) if config.api.tls_certificate else None,
        master_keys=_master_keys(config),
        idempotency_ttl=config.api.idempotency_ttl,
        rate_limit=config.api.rate_limit,
        rate_burst=config.api.rate_burst,
        require_if_match=config.api.require_if_match,
    )
    # Somebody waits for the answer: that the database is away has to be said before they give up.
    return Wiring(run=partial(serve, settings=settings), connections=config.database.pool, patience=10.0)


def _scheduler(config: Config) -> Wiring:
    from scheduler.control.role import run  # noqa: PLC0415
    from scheduler.control.settings import CONNECTIONS, ControlSettings  # noqa: PLC0415
    from scheduler.store.terms import leader_settings  # noqa: PLC0415

    settings = ControlSettings(lock_ttl=config.scheduler.lock_ttl)
    return Wiring(
        run=partial(run, settings=settings),
        connections=max(CONNECTIONS, config.database.pool),
        session=leader_settings(settings.lock_ttl),
    )


def _worker(config: Config) -> Wiring:
    from scheduler.worker.role import run  # noqa: PLC0415
    from scheduler.worker.settings import WorkerSettings  # noqa: PLC0415

    worker = config.worker
    settings = WorkerSettings(
        name=worker.name,
        queues=worker.queues,
        concurrency=worker.concurrency,
        labels=worker.labels,
        lease=worker.lease,
        drain_timeout=worker.drain_timeout,
        task_user=worker.task_user,
        state_dir=worker.state_dir,
        api_url=worker.api_url,
        master_keys=_master_keys(config),
    )
    # A connection of its own: renewing the lease must not wait for anything.
    return Wiring(
        run=partial(run, settings=settings),
        connections=config.database.pool,
        extra={"lease_database": 1},
    )


_ROLES: dict[str, Callable[[Config], Wiring]] = {"api": _api, "scheduler": _scheduler, "worker": _worker}
