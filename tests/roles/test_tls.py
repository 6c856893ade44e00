"""Encrypted connections: of clients with the API, and of the roles with PostgreSQL and Redis."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc
import httpx2
import pytest
from anyio.streams.tls import TLSAttribute, TLSStream

from scheduler import config
from scheduler.api import TlsSettings
from scheduler.api.tls import Certificate
from scheduler.broker import Broker, BrokerUnavailable
from scheduler.config import ConfigError
from scheduler.domain.clock import SystemClock
from scheduler.health import Health
from scheduler.store.database import Database, StoreUnavailable
from tests.roles.api.test_http import serving
from tests.support.tls import Authority, ask_postgres_for_tls, tls_front
from tests.support.waiting import until

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def _connected(port: int, authority: Authority) -> AsyncIterator[TLSStream]:
    context = ssl.create_default_context(cafile=authority.ca_file)
    tcp = await anyio.connect_tcp("127.0.0.1", port)
    stream = await TLSStream.wrap(tcp, hostname="localhost", ssl_context=context, standard_compatible=False)
    async with stream:
        yield stream


async def _serial(port: int, authority: Authority) -> str:
    async with _connected(port, authority) as stream:
        return str(stream.extra(TLSAttribute.peer_certificate)["serialNumber"])  # type: ignore[index]  # it has one


async def _answered(stream: TLSStream) -> bool:
    await stream.send(REQUEST)
    answer = b""
    while b'"ok"' not in answer:
        answer += await stream.receive()
    return answer.startswith(b"HTTP/1.1 200")


async def test_a_new_certificate_serves_new_connections_and_open_ones_go_on(
    database: Database, redis_url: str, authority: Authority
) -> None:
    certificate, key = authority.issue("server")
    async with serving(database, redis_url, TlsSettings(str(certificate), str(key))) as api:
        context = ssl.create_default_context(cafile=authority.ca_file)
        async with httpx2.AsyncClient(base_url=f"https://localhost:{api.port}", verify=context) as client:
            assert (await client.post("/api/tasks", json={"name": "a", "command": "true"})).status_code == 201
        before = await _serial(api.port, authority)
        async with _connected(api.port, authority) as stream:
            assert await _answered(stream)
            for new, old in zip(authority.issue("renewed"), (certificate, key), strict=True):
                shutil.move(new, old)

            async def renewed() -> bool:
                return await _serial(api.port, authority) != before

            await until(renewed, 15.0)
            assert await _answered(stream)


async def test_a_certificate_without_its_key_changes_nothing(authority: Authority) -> None:
    certificate, key = authority.issue("server")
    health = Health(SystemClock())
    watched = Certificate(str(certificate), str(key), health)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    watched.serve(context)
    shutil.copy(authority.issue("other")[0], certificate)
    await watched.step()
    assert not health.ok
    with pytest.raises(ssl.SSLError):
        Certificate(str(certificate), str(key), health)
    shutil.copy(certificate.with_name("other.key"), key)
    await watched.step()
    assert health.ok


async def test_postgresql_must_show_a_certificate_of_the_authority_in_its_name(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    query = parse_qs(urlsplit(database_url).query)
    name = urlsplit(database_url).path.strip("/")
    socket = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"

    async def connect() -> anyio.abc.ByteStream:
        return await anyio.connect_unix(socket)

    def url(port: int, ca_file: Path) -> str:
        user = (query.get("user") or [urlsplit(database_url).username or "postgres"])[0]
        given = f"postgresql://{user}@localhost:{port}/{name}"
        loaded = config.load({"database.url": given, "database.ca_file": str(ca_file)}, environ={})
        return loaded.config.database.url

    async with tls_front(*authority.issue("db"), connect, ask_postgres_for_tls) as port:
        database = await Database.connect(url(port, authority.ca_file), name="tls")
        assert await database.fetchval("database_now")
        await database.close()
        (tmp_path / "stranger").mkdir()
        with pytest.raises(StoreUnavailable, match="certificate"):
            await Database.connect(url(port, Authority(tmp_path / "stranger").ca_file), name="tls")
    async with tls_front(*authority.issue("elsewhere", "db.example"), connect, ask_postgres_for_tls) as port:
        with pytest.raises(StoreUnavailable, match="certificate"):
            await Database.connect(url(port, authority.ca_file), name="tls")


async def test_redis_must_show_a_certificate_of_the_authority_in_its_name(
    redis_url: str, authority: Authority, tmp_path: Path
) -> None:
    number = parse_qs(urlsplit(redis_url).query).get("db", ["0"])[0]

    async def connect() -> anyio.abc.ByteStream:
        return await anyio.connect_unix(urlsplit(redis_url).path)

    async def ping(port: int, ca_file: Path) -> None:
        given = {"redis.url": f"rediss://localhost:{port}/{number}", "redis.ca_file": str(ca_file)}
        url = config.load(given, environ={}).config.redis.url
        async with Broker.connect(url, installation="t", name="tls", clock=SystemClock()) as broker:
            await broker.ping()

    async with tls_front(*authority.issue("redis"), connect) as port:
        await ping(port, authority.ca_file)
        (tmp_path / "stranger").mkdir()
        with pytest.raises(BrokerUnavailable):
            await ping(port, Authority(tmp_path / "stranger").ca_file)
    async with tls_front(*authority.issue("elsewhere", "redis.example"), connect) as port:
        with pytest.raises(BrokerUnavailable):
            await ping(port, authority.ca_file)


@pytest.mark.parametrize(
    "given",
    [
        {"api.tls_certificate": "server.crt"},
        {"api.tls_key": "server.key"},
        {"redis.url": "redis://localhost", "redis.ca_file": "ca.pem"},
    ],
)
def test_half_of_what_encryption_needs_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        config.load(given, environ={})
