"""Fixtures for every test: a fresh database and a fresh Redis each, on servers that run for the whole session."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

from scheduler import telemetry
from scheduler.domain.clock import SystemClock
from scheduler.health import Health
from scheduler.store.database import Database
from scheduler.worker.cgroups import sweep
from scheduler.worker.hierarchies import own_hierarchies
from tests.support.cluster.links import Link, relayed, unix_listener
from tests.support.servers import DATABASES, ServerHandle, Servers, session_servers

_TURNSTILE, _ROOM = Path(__file__), Path(__file__).parent / "__init__.py"
"""Files to lock: one to pass through on the way, the other for as long as a test runs."""

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # how long an example takes is the machine's affair

_redis_numbers = itertools.cycle(range(1, DATABASES))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run tests side by side, if there are several processes, but nothing beside one that is marked `alone`.

    Whoever waits to be alone waits in the turnstile, so that nobody else goes in before.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    with _TURNSTILE.open() as turnstile, _ROOM.open() as room:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _logging() -> None:
    telemetry.configure(role="test", level="warning", layout="console")


@pytest.fixture(scope="session", autouse=True)
def _cgroups() -> Iterator[None]:
    """Leave no cgroups of guards that tests have killed."""
    yield
    for hierarchy in own_hierarchies():
        sweep(hierarchy.directory)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Real PostgreSQL and Valkey; start-up is about a second."""
    with session_servers() as running:
        yield running


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A fresh database with every migration applied."""
    with servers.database() as url:
        yield url


@pytest.fixture
def empty_database_url(servers: Servers) -> Iterator[str]:
    """A fresh database without any schema."""
    with servers.database(migrated=False) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on the fresh database."""
    connected = await Database.connect(database_url, name="test", min_size=1, max_size=8)
    try:
        yield connected
    finally:
        await connected.close()


@pytest.fixture
def link(servers: Servers, tmp_path: Path) -> Iterator[Link]:
    """A way to PostgreSQL that can be cut: see `far_url`."""
    with relayed("test", servers.portal, unix_listener(tmp_path / ".s.PGSQL.5432"), servers.postgres.socket) as made:
        yield made


@pytest.fixture
def far_url(servers: Servers, database_url: str, link: Link, tmp_path: Path) -> str:
    """The test's database, reached through the link."""
    assert link.name
    return database_url.replace(str(servers.postgres.socket.parent), str(tmp_path))


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """An emptied database of the session's Valkey. Functions and pub/sub are shared with other tests."""
    url = servers.redis_url(next(_redis_numbers))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def redis_server(servers: Servers) -> Iterator[ServerHandle]:
    """A Valkey of the test's own, started: to stop, kill, freeze or wipe."""
    handle = servers.new_valkey(servers.next_name())
    handle.start()
    yield handle
    handle.stop()


@pytest.fixture
def postgres_server(servers: Servers) -> Iterator[ServerHandle]:
    """A PostgreSQL of the test's own, started, without schema: to stop, kill or freeze. Takes most of a second."""
    handle = servers.new_postgres(servers.next_name())
    handle.start()
    yield handle
    handle.stop()


@pytest.fixture
def clock() -> SystemClock:
    """The machine's clock; set `offset` to jump wall time."""
    return SystemClock()


@pytest.fixture
def health(clock: SystemClock) -> Health:
    return Health(clock)
