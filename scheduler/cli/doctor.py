"""`dts doctor`: look at a live system, say what is wrong with it and what would mend it. Nothing is changed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from scheduler.cli import exits
from scheduler.cli.connection import JSON
from scheduler.cli.database import with_database
from scheduler.cli.options import Config, DatabaseUrl, RedisUrl
from scheduler.cli.processes import load

if TYPE_CHECKING:
    from scheduler.config import Loaded
    from scheduler.domain.checkup import Check
    from scheduler.store.database import Database  # imported for real only where it is used: help must be quick

app = App(name="doctor")


@app.default
def doctor(
    *,
    invariants: Annotated[
        bool, Parameter(negative="", help="Only check the promises: whether what PostgreSQL holds contradicts them.")
    ] = False,
    newest: Annotated[int | None, Parameter(help="Rows of history to look at. Default: 10000.")] = None,
    json: JSON = False,
    config: Config = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> int:
    """Look at this machine and a live system: what is wrong, and what would mend it. Changes nothing.

    Versions and settings of PostgreSQL and Redis, clocks, the schema, who leads and works, this machine's limits,
    directories and cgroups, and with `--invariants` the promises. Exit 1 if anything is wrong, 69 if a server is away.
    """
    if invariants:
        return with_database(
            "dts doctor",
            config,
            database_url,
            lambda database: _invariants(database, newest, json=json),
            enough="dts_scheduler",
        )
    import anyio  # noqa: PLC0415 - not needed for help

    loaded = load({"config": config, "database.url": database_url, "redis.url": redis_url})
    if loaded is None:
        return exits.CONFIG
    return anyio.run(_look, loaded, json)


async def _look(loaded: Loaded, json: bool) -> int:
    from scheduler.cli.output import Output  # noqa: PLC0415

    output = Output(json=json)
    code = exits.OK
    async for check in _checks(loaded):
        if check.name == "reachable" and check.verdict == "wrong":
            code = exits.UNAVAILABLE
        elif check.verdict == "wrong" and code == exits.OK:
            code = exits.FAILURE
        if output.pretty:
            output.verdict(check.verdict, f"{check.area}: {check.name}", check.says, check.fix)
        else:
            output.data(check)
    return code


async def _checks(loaded: Loaded) -> AsyncIterator[Check]:
    from asyncpg import PostgresError  # noqa: PLC0415

    from scheduler.broker.checkup import examine as examine_redis  # noqa: PLC0415
    from scheduler.broker.errors import BrokerUnavailable  # noqa: PLC0415
    from scheduler.cli import host  # noqa: PLC0415
    from scheduler.domain.checkup import (  # noqa: PLC0415
        judge_host,
        judge_redis,
        server_away,
        server_refuses,
        server_unknown,
    )
    from scheduler.domain.clock import SystemClock  # noqa: PLC0415
    from scheduler.store.database import Database, StoreUnavailable  # noqa: PLC0415

    for check in judge_host(host.examine(loaded.config)):
        yield check
    if not (redis_url := loaded.config.redis.url):
        yield server_unknown("redis", "--redis-url or DTS_REDIS_URL")
    else:
        try:
            facts = await examine_redis(redis_url, SystemClock())
        except BrokerUnavailable as error:
            yield server_away("redis", str(error))
        else:
            for check in judge_redis(facts):
                yield check
    if not (url := loaded.config.database.url):
        yield server_unknown("postgresql", "--database-url or DTS_DATABASE_URL")
        return
    try:
        database = await Database.connect(url, name="dts doctor", max_size=2)
        try:
            async for check in _of_database(database):
                yield check
        finally:
            await database.close()
    except StoreUnavailable as error:
        yield server_away("postgresql", str(error))
    except PostgresError as error:
        yield server_refuses("postgresql", str(error))


async def _of_database(database: Database) -> AsyncIterator[Check]:
    from scheduler.domain.checkup import judge_fleet, judge_postgres, judge_schema  # noqa: PLC0415
    from scheduler.domain.clock import SystemClock  # noqa: PLC0415
    from scheduler.store import migrate  # noqa: PLC0415
    from scheduler.store.checkup import examine  # noqa: PLC0415
    from scheduler.store.queues import Queues  # noqa: PLC0415

    for check in judge_postgres(await examine(database, SystemClock())):
        yield check
    missing = [f"{m.version} {m.name}" for m in await migrate.status(database) if not m.applied]
    yield judge_schema(missing)
    if not missing:
        queues = Queues(database)
        leader = await queues.leader()
        for check in judge_fleet(leader.silent if leader.holder else None, await queues.live_workers()):
            yield check


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
